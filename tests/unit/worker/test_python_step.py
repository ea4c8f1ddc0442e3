"""The python step: its call convention, its failures, and that nothing it does reaches the worker."""

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from worker.executors.python_step import PythonStep
from worker.failure import JobFailed
from worker.job import Job


@pytest.fixture(params=["fresh", "warm"], scope="module")
async def step(request: pytest.FixtureRequest) -> AsyncIterator[PythonStep]:
    """Promises hold for a fresh interpreter and for a child of a warm parent alike."""
    step = PythonStep({"COLOUR": "blue"})
    if request.param == "fresh":
        yield step
    else:
        async with step:
            yield step


async def run(step: PythonStep, code: str, data: Any = None) -> Any:
    return await step.execute(
        Job(1, "default", "python", attempt=2, max_attempts=3, input={"code": code, "data": data})
    )


async def failure_of(step: PythonStep, code: str) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await run(step, code)
    return caught.value


@pytest.mark.parametrize(
    ("signature", "body", "data", "result"),
    [
        ("", "1", {"x": 2}, 1),
        ("input_data", "sorted(input_data)", {"x": 2}, ["context", "with", "x"]),
        ("input_data", "input_data['with']", {"x": 2}, {"x": 2}),
        ("input_data", "input_data['with']", [1, 2], [1, 2]),
        ("**kwargs", "[sorted(kwargs), kwargs['context']['attempt']]", {"x": 2}, [["context", "x"], 2]),
        ("x, **kwargs", "[x, sorted(kwargs)]", {"x": 2, "y": 3}, [2, ["context", "y"]]),
        ("y, x=7", "[y, x]", {"y": 3, "z": 4}, [3, 7]),
        ("context, *, x", "[context['attempt'], x]", {"x": 2}, [2, 2]),
        ("x, input_data", "[x, input_data['x']]", {"x": 2}, [2, 2]),
    ],
)
async def test_main_gets_what_its_parameters_ask_for(
    step: PythonStep, signature: str, body: str, data: Any, result: Any
) -> None:
    assert await run(step, f"def main({signature}):\n    return {body}", data) == result


async def test_coroutine_and_decorated_mains_are_called_alike(step: PythonStep) -> None:
    code = """
import functools
def logged(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return await function(*args, **kwargs)
    return wrapper

@logged
async def main(x):
    return x
"""
    assert await run(step, code, {"x": 5, "y": 6}) == 5


async def test_imports_of_the_module_are_visible_inside_main(step: PythonStep) -> None:
    assert (
        await run(step, "import math\nROOT = math.sqrt(4)\ndef main():\n    return math.sqrt(ROOT * 8)") == 4
    )


async def test_usual_modules_are_there_without_import(step: PythonStep) -> None:
    code = "def main():\n    return [json.dumps(1), str(uuid.UUID(int=0))[:4], datetime.date.min, os.sep]"
    assert await run(step, code) == ["1", "0000", "0001-01-01", "/"]


async def test_prints_do_not_disturb_the_result(step: PythonStep) -> None:
    assert (
        await run(step, "import sys\ndef main():\n    print('{}' * 9999)\n    sys.stdin.read()\n    return 1")
        == 1
    )


async def test_exception_becomes_type_message_and_the_authors_own_lines(step: PythonStep) -> None:
    failure = await failure_of(
        step, "def main():\n    print('step 1')\n    raise LookupError('no such order')"
    )
    assert (failure.type, str(failure)) == ("LookupError", "no such order")
    assert failure.stack_trace is not None
    assert "raise LookupError('no such order')" in failure.stack_trace
    assert "python_code.py" not in failure.stack_trace
    assert failure.stack_trace.endswith("--- last output ---\nstep 1\n")


async def test_facts_on_the_exception_reach_the_failure(step: PythonStep) -> None:
    failure = await failure_of(
        step,
        "class Busy(Exception):\n    status_code = 429\n    retry_after = 7\ndef main():\n    raise Busy('wait')",
    )
    assert (failure.type, failure.status_code, failure.retry_after) == ("Busy", 429, 7)


@pytest.mark.parametrize(
    ("code", "failure_type", "message"),
    [
        ("x = 1", "main_missing", "no function main"),
        ("def main(:", "SyntaxError", "invalid syntax"),
        ("def main(x):\n    pass", "TypeError", "missing 1 required positional argument: 'x'"),
        ("def main():\n    return {1, 2}", "result_not_json", "type set"),
        ("def main():\n    return float('nan')", "result_not_json", "not JSON compliant"),
        ("import sys\ndef main():\n    sys.exit(3)", "SystemExit", "3"),
        (
            "import os\ndef main():\n    print('bye')\n    os._exit(3)",
            "process_exited",
            "status 3 before it returned: bye",
        ),
        ("import os\ndef main():\n    os.kill(os.getpid(), 11)", "process_killed", "killed by SIGSEGV"),
        ("def main():\n    return 'x' * 5_000_000", "result_too_large", "bytes or more"),
    ],
)
async def test_whatever_ends_the_step_is_a_failure_of_its_own_type(
    step: PythonStep, code: str, failure_type: str, message: str
) -> None:
    failure = await failure_of(step, code)
    assert failure.type == failure_type
    assert message in str(failure)


@pytest.mark.parametrize("code", [None, "", 3])
async def test_step_without_code_is_refused(code: Any) -> None:
    with pytest.raises(JobFailed) as caught:
        await PythonStep({}).execute(Job(1, "default", "python", 1, 1, {"code": code}))
    assert caught.value.type == "input_invalid"


async def test_only_the_end_of_the_output_is_kept(step: PythonStep) -> None:
    failure = await failure_of(
        step, "def main():\n    print('first')\n    print('x' * 100_000)\n    print('last')\n    1 / 0"
    )
    assert failure.stack_trace is not None
    assert "first" not in failure.stack_trace
    assert failure.stack_trace.endswith("last\n")


async def test_folder_is_the_attempts_own_and_goes_with_it(step: PythonStep) -> None:
    code = "import tempfile\ndef main():\n    open('left', 'w').close()\n    return [os.getcwd(), tempfile.mkdtemp()]"
    folder, temporary = await run(step, code)
    assert temporary.startswith(folder)
    assert not await asyncio.to_thread(os.path.exists, folder)


async def test_child_sees_no_environment_but_what_it_is_given(step: PythonStep) -> None:
    seen = await run(step, "def main():\n    return dict(os.environ)")
    assert seen.pop("TMPDIR")
    assert {name for name in seen if not name.startswith("LC_")} == {"COLOUR"}


async def test_cancelling_kills_the_whole_process_group(step: PythonStep, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"""
import os, subprocess
def main():
    child = subprocess.Popen(["sleep", "1000"])
    with open({str(ready)!r}, "w") as out:
        out.write(f"{{os.getpid()}} {{child.pid}}")
    while True: pass
"""
    running = asyncio.create_task(run(step, code))
    step_process, grandchild = map(int, (await asyncio.to_thread(ready.read_text)).split())
    running.cancel()
    await asyncio.wait({running})
    assert isinstance(running.exception(), JobFailed)
    assert _ends(step_process)
    assert _ends(grandchild)


async def test_background_process_does_not_outlive_the_step(step: PythonStep) -> None:
    code = "import subprocess\ndef main():\n    return subprocess.Popen(['sleep', '1000']).pid"
    assert _ends(await run(step, code))


async def test_thread_that_the_step_leaves_does_not_hold_it_up(step: PythonStep) -> None:
    code = "import threading\ndef main():\n    threading.Thread(target=threading.Event().wait).start()\n    return 1"
    assert await run(step, code) == 1


async def test_file_that_the_step_leaves_open_is_written(step: PythonStep, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    code = f"kept = open({str(kept)!r}, 'w')\ndef main():\n    kept.write('all of it')"
    await run(step, code)
    assert kept.read_text() == "all of it"


@pytest.mark.parametrize("entered", ["PythonStep({})", "await stack.enter_async_context(PythonStep({}))"])
def test_step_dies_with_its_worker_even_while_it_holds_the_interpreter(tmp_path: Path, entered: str) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    code = f"""
import os, re
def main():
    with open({str(ready)!r}, "w") as out:
        out.write(f"{{os.getpid()}} {{os.getppid()}} {{os.getcwd()}}")
    re.match("(a+)+$", "a" * 60 + "b")
"""
    program = f"""
import asyncio, contextlib, sys
from worker.executors.python_step import PythonStep
from worker.job import Job
async def work():
    async with contextlib.AsyncExitStack() as stack:
        await ({entered}).execute(Job(1, "default", "python", 1, 1, {{"code": sys.argv[1]}}))
asyncio.run(work())
"""
    worker = subprocess.Popen([sys.executable, "-c", program, code])
    step, parent, folder = ready.read_text().split()
    processes = [psutil.Process(int(step)), psutil.Process(int(parent))]
    worker.kill()
    worker.wait()
    psutil.wait_procs(processes, timeout=5)
    assert [_is_alive(process.pid) for process in processes] == [False, False]
    if "enter" in entered:  # else nobody is left who could remove it
        assert not Path(folder).exists()


def _ends(process_id: int) -> bool:
    """Whether a process has ended, or does as soon as it gets a processor: one that was killed still has to."""
    try:
        process = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([process], [], [], 5)
    os.close(process)
    return bool(ended)


def _is_alive(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
