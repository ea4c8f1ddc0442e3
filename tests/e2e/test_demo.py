"""`reprise demo`: what a newcomer sees in the first ten seconds, and that what it says can be copied works."""

import asyncio
import os
import re
from pathlib import Path

import psutil
import pytest

from tests.fixtures_broker import StartProcess
from tests.processes import Process


@pytest.fixture
async def demo(start_process: StartProcess, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A demo that has ended."""
    monkeypatch.delenv("REPRISE_DATABASE_URL", raising=False)
    process = await start_process("broker.cli", "demo", "--data", str(short_path))
    await process.exit_code()
    return process


async def test_it_shows_the_attempts_the_decisions_and_the_rows(demo: Process, short_path: Path) -> None:
    assert await demo.exit_code() == 0
    told = [line.split("fail_task")[1].split() for line in demo.output.splitlines() if "fail_task  " in line]
    story = [" ".join(words) for words in told if re.match(r"\d/3", words[0])]
    assert [line.partition(" on ")[0] for line in story] == [
        "1/3 attempt started",
        "1/3 attempt failed: Exception: Test retry",
        "1/3 retry in 1 s: retry_when is true",
        "2/3 attempt started",
        "2/3 attempt failed: Exception: Test retry",
        "2/3 retry in 1.5 s: retry_when is true",
        "3/3 attempt started",
        "3/3 attempt failed: Exception: Test retry",
        "3/3 dead: no attempt is left",
    ]
    assert re.search(r"^\d+ +dead +3 +3 +-$", demo.output, re.MULTILINE)
    kinds = re.findall(r"^(action_\w+) +fail_task +\{", demo.output, re.MULTILINE)
    assert sorted(kinds) == ["action_error"] * 3 + ["action_retry"] * 2 + ["action_started"] * 3
    place = str(short_path)
    assert not [
        part for part in psutil.process_iter(["cmdline"]) if place in " ".join(part.info["cmdline"] or [])
    ]


async def test_its_lines_to_copy_work_on_what_it_left(
    demo: Process, start_process: StartProcess, short_path: Path
) -> None:
    _, _, by_hand = demo.output.partition("The same by hand")
    lines = [line for line in by_hand.splitlines() if "reprise.v1.PlaybookService/" in line]
    assert len(lines) == 3
    dev = await start_process(
        "broker.cli",
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--data",
        str(short_path),
        "--logs",
        str(short_path / "logs"),
    )
    announced = re.search(r"broker=(\S+)", await dev.output_with("ready "))
    assert announced
    registered, started, watched = [
        await _shell(line.replace("127.0.0.1:50051", announced[1])) for line in lines
    ]
    await dev.stop()
    assert '"path": "tests/retry/verify"' in registered
    assert '"executionId"' in started
    assert '"EXECUTION_STATUS_FAILED"' in watched


async def _shell(line: str) -> str:
    """What the line prints, typed in the repository by someone without the environment activated."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    shell = await asyncio.create_subprocess_shell(
        line, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    printed, _ = await shell.communicate()
    assert shell.returncode == 0, printed
    return printed.decode()
