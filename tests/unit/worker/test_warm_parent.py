"""The warm parent of python steps: what its children share with one another, and what becomes of it."""

import asyncio
import os
import resource
import select
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from worker.executors.python_step import PythonStep
from worker.failure import JobFailed
from worker.job import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each step is a fresh interpreter")

PARENT = "def main():\n    return os.getppid()"


@pytest.fixture
async def step() -> AsyncIterator[PythonStep]:
    async with PythonStep({"COLOUR": "blue"}) as step:
        yield step


async def run(step: PythonStep, code: str, **data: Any) -> Any:
    return await step.execute(Job(1, "default", "python", 1, 1, {"code": code, "data": data}))


async def test_step_that_changes_everything_leaves_no_trace_for_the_next(step: PythonStep) -> None:
    look = """
import json, os, random, signal, sys, tempfile, threading
def look():
    return {
        "dumps": json.dumps([1]),
        "modules": sorted(sys.modules),
        "path": sys.path,
        "environment": {name: os.environ[name] for name in os.environ if name != "TMPDIR"},
        "in_own_folder": [os.getcwd(), tempfile.gettempdir()] == [os.environ["TMPDIR"]] * 2,
        "in_folder": os.listdir(),
        "threads": threading.active_count(),
        "umask": os.umask(0o22),
        "handler": str(signal.getsignal(signal.SIGTERM)),
        "limit": sys.getrecursionlimit(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "own_group": os.getpid() == os.getpgrp() == os.getsid(0),
    }
"""
    change = """
def main():
    json.dumps = lambda value: "patched"
    sys.modules["colorsys"] = sys.modules["step"]
    sys.path.insert(0, "/nowhere")
    os.environ["COLOUR"] = "red"
    os.environ["TMPDIR"] = "/"
    open("left", "w").close()
    os.chdir("/")
    os.umask(0)
    tempfile.tempdir = "/elsewhere"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setrecursionlimit(50_000)
    os.dup(1)
    threading.Thread(target=threading.Event().wait).start()
    return look()
"""
    before = await run(step, f"{look}\ndef main(): return look()")
    changed = await run(step, look + change)
    after = await run(step, f"{look}\ndef main(): return look()")
    assert [name for name in before if changed[name] == before[name]] == ["own_group"]
    assert after == before
    assert (before["dumps"], before["environment"]["COLOUR"], before["threads"]) == ("[1]", "blue", 1)
    assert (before["in_own_folder"], before["in_folder"], before["own_group"]) == (True, [], True)


async def test_every_attempt_draws_its_own_random_numbers(step: PythonStep) -> None:
    code = "import random\ndef main():\n    return [random.random(), str(uuid.uuid4())]"
    first, second = await run(step, code), await run(step, code)
    assert not set(first) & set(second)


async def test_parent_has_no_thread_no_grpc_and_only_the_environment_for_steps(step: PythonStep) -> None:
    code = """
import sys
def main():
    parent = f"/proc/{os.getppid()}"
    return {
        "threads": len(os.listdir(f"{parent}/task")),
        "environment": open(f"{parent}/environ").read().split("\\0"),
        "grpc": [name for name in sys.modules if name.partition(".")[0] in ("grpc", "google", "reprise")],
    }
"""
    assert await run(step, code) == {"threads": 1, "environment": ["COLOUR=blue", ""], "grpc": []}


async def test_attempts_run_side_by_side_without_one_anothers_descriptors(
    step: PythonStep, tmp_path: Path
) -> None:
    for name in "ab":
        os.mkfifo(tmp_path / name)
    code = """
def main(mine, others):
    if mine < others:
        open(mine, "w").write("met")
        open(others).read()
    else:
        open(others).read()
        open(mine, "w").write("met")
    return [len(os.listdir("/proc/self/fd")), os.getpid(), os.getppid()]
"""
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    async with asyncio.timeout(5):
        first, second = await asyncio.gather(
            run(step, code, mine=a, others=b), run(step, code, mine=b, others=a)
        )
    (descriptors, process, parent), (descriptors_too, process_too, parent_too) = first, second
    assert (process != process_too, parent == parent_too) == (True, True)
    # Input, output, error, the answer, the lifeline, and the folder that is being listed.
    assert (descriptors, descriptors_too) == (6, 6)


async def test_what_a_step_leaves_behind_is_killed_and_reaped(step: PythonStep) -> None:
    code = """
import subprocess
def main():
    return [os.getppid(), *(subprocess.Popen(["sleep", "1000"]).pid for _ in range(3))]
"""
    parent, *left = await run(step, code)
    assert await run(step, PARENT) == parent  # and has looked after what had ended by then
    assert not [process for process in psutil.Process(parent).children() if process.pid in left]
    assert not any(psutil.pid_exists(process) for process in left)


async def test_parent_that_dies_costs_its_attempts_and_nobody_else(step: PythonStep, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"""
def main():
    with open({str(ready)!r}, "w") as out:
        out.write(f"{{os.getppid()}} {{os.getpid()}} {{os.getcwd()}}")
    while True: pass
"""
    running = asyncio.create_task(run(step, code))
    parent, process, folder = (await asyncio.to_thread(ready.read_text)).split()
    child = os.pidfd_open(int(process))
    os.kill(int(parent), 9)
    with pytest.raises(JobFailed, match="killed by SIGKILL") as caught:
        await running
    assert caught.value.type == "process_killed"
    ended, _, _ = await asyncio.to_thread(select.select, [child], [], [], 5)
    os.close(child)
    assert ended  # and is init's to reap
    assert not await asyncio.to_thread(os.path.exists, folder)
    assert await run(step, PARENT) != int(parent)


async def test_step_that_kills_its_parent_fails_alone(step: PythonStep) -> None:
    with pytest.raises(JobFailed) as caught:
        await run(step, "import time\ndef main():\n    os.kill(os.getppid(), 9)\n    time.sleep(60)")
    assert caught.value.type == "process_killed"
    assert await run(step, "def main():\n    return 1") == 1


async def test_child_that_cannot_be_started_fails_its_attempt_only(step: PythonStep) -> None:
    parent = psutil.Process(await run(step, PARENT))
    before = parent.rlimit(resource.RLIMIT_NOFILE)
    parent.rlimit(resource.RLIMIT_NOFILE, (7, before[1]))
    with pytest.raises(OSError, match="too many open files"):
        await run(step, PARENT)
    parent.rlimit(resource.RLIMIT_NOFILE, before)
    assert await run(step, PARENT) == parent.pid


async def test_many_attempts_at_once_all_come_back(step: PythonStep) -> None:
    code = "def main(n):\n    return n"
    assert await asyncio.gather(*(run(step, code, n=n) for n in range(100))) == list(range(100))


async def test_parent_ends_with_its_step(tmp_path: Path) -> None:
    async with PythonStep({}) as step:
        parent = await run(step, PARENT)
    assert not psutil.pid_exists(parent)
