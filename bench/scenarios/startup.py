"""How soon the command answers: its help, and `reprise dev` from its second start on, when there is a database already."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.measurement import Measurement, Row
from bench.scenario import Stage

_COMMAND = Path(sys.executable).with_name("reprise")
_HELPS = 11  # of one round


def measure(stage: Stage) -> Iterator[Measurement]:
    """Milliseconds from the call to the end of the help, and to the line that says ready."""
    _dev(stage.folder)
    for _ in range(stage.rounds):
        yield Row("reprise --help", "reprise", values={"p50_ms": median(_help() for _ in range(_HELPS))})
        yield Row("reprise dev, second start", "reprise", values={"until_ready_ms": _dev(stage.folder)})


def _help() -> float:
    started = time.perf_counter()
    subprocess.run([_COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1000


def _dev(folder: Path) -> float:
    """Starts everything and stops it again."""
    started = time.perf_counter()
    with subprocess.Popen(
        [_COMMAND, "dev", "--listen", "127.0.0.1:0"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        milliseconds = (time.perf_counter() - started) * 1000
        process.send_signal(signal.SIGINT)
    if not line.startswith("ready "):
        raise RuntimeError(f"it did not become ready: {line}")
    return milliseconds
