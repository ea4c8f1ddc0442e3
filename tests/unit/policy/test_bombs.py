"""No expression costs more than 50 ms of CPU or 10 MB: measured for each bomb, in one process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.policy import bombs
from tests.unit.policy.bombs import Cost, Measured

MAX_CPU_SECONDS = 0.050
MAX_PEAK_BYTES = 10_000_000
ROOT = Path(__file__).parents[3]
NAMES = bombs.list_names()


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    """What every bomb costs, by name; those after one that ended the process are not there."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.unit.policy.bombs"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    return {
        name: Measured(name, Cost(*compiled), Cost(*evaluated), outcome)
        for name, compiled, evaluated, outcome in rows
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_stays_within_50_ms_and_10_mb(measured: dict[str, Measured], name: str) -> None:
    assert name in measured, "the process that measures ended before this bomb, or by it"
    bomb = measured[name]
    assert max(bomb.compiled.cpu, bomb.evaluated.cpu) <= MAX_CPU_SECONDS, bomb
    assert max(bomb.compiled.peak, bomb.evaluated.peak) <= MAX_PEAK_BYTES, bomb


def test_the_measurement_sees_too_much_cpu(measured: dict[str, Measured]) -> None:
    assert measured[bombs.CPU_CONTROL].evaluated.cpu > MAX_CPU_SECONDS


def test_the_measurement_sees_too_much_memory(measured: dict[str, Measured]) -> None:
    assert measured[bombs.MEMORY_CONTROL].evaluated.peak > MAX_PEAK_BYTES
