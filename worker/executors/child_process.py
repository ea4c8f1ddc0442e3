"""Runs one attempt's code in a process of its own, and kills it with everything that it started.

Owns pipes, process group and the tail of the output; knows nothing of what runs inside.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.failure import RESULT_TOO_LARGE, JobFailed

TAIL_BYTES = 8 * 1024  # of standard output and error that a failure shows
LAST_WORDS_SECONDS = 1.0  # for output that is still in the pipe when the process has ended
MOST_ANSWER_BYTES = 4 * 1024 * 1024
_ROOT = Path(__file__).parents[2]
# -I: neither the environment nor the working folder decides what the child imports.
_INTERPRETER = (sys.executable, "-I", "-u", "-X", "utf8", "-X", "faulthandler", "-c")
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from worker.child.{entry} import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


@dataclass(frozen=True, slots=True)
class Child:
    """How to start a child: `entry` is a module of worker.child, `folder` its working folder, `environment`
    all it gets.
    """

    entry: str
    folder: Path
    environment: Mapping[str, str]


async def run_in_child(child: Child, given: Mapping[str, Any]) -> Any:
    """What the child answers to `given` (JSON).

    Raises JobFailed: what the child says went wrong, or "process_exited" and "process_killed" where it ends
    without
    an answer; its last output is in `stack_trace`. Cancelled, it kills the process group and raises
    JobFailed, too.
    """
    output = _Tail()
    with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as answer:
        job.write(json.dumps(given).encode())
        job.seek(0)
        status = await _run(child, job.fileno(), answer.fileno(), output)
        answer.seek(0)
        text = answer.read(MOST_ANSWER_BYTES)
    return _result_of(text, status, output.text())


async def _run(child: Child, job: int, answer: int, output: "_Tail") -> int:
    """The child's exit status; negative: the signal that killed it."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as ours:
        lifeline, lifeline_end = os.pipe()
        ours.callback(os.close, lifeline_end)  # its closing is what tells the child that the worker is gone
        output_end, output_start = os.pipe()
        transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(output_end, "rb", buffering=0))
        ours.callback(transport.close)
        try:
            process = await asyncio.create_subprocess_exec(
                *_INTERPRETER,
                _PROGRAM.format(entry=child.entry),
                str(_ROOT),
                str(lifeline),
                str(answer),
                stdin=job,
                stdout=output_start,
                stderr=output_start,
                pass_fds=(lifeline, answer),
                start_new_session=True,
                cwd=child.folder,
                env=dict(child.environment),
            )
        finally:
            os.close(lifeline)
            os.close(output_start)
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            _kill_group(process.pid)
            await process.wait()
            await output.wait_until_closed()
            raise JobFailed("step was stopped", type="stopped", stack_trace=output.text()) from None
        _kill_group(process.pid)  # what it left behind
        await output.wait_until_closed()
        return status


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _result_of(text: bytes, status: int, output: str) -> Any:
    if len(text) == MOST_ANSWER_BYTES:
        raise JobFailed(f"result has {MOST_ANSWER_BYTES} bytes or more", type=RESULT_TOO_LARGE)
    try:
        answer = json.loads(text)
    except ValueError:
        raise _ended_without_answer(status, output) from None
    if "failure" not in answer:
        return answer["result"]
    facts = answer["failure"]
    shown = f"{facts['stack_trace']}\n--- last output ---\n{output}" if output else facts["stack_trace"]
    raise JobFailed(
        facts["message"],
        type=facts["type"],
        status_code=facts["status_code"],
        retry_after=facts["retry_after"],
        result=json.loads(facts["result_json"]) if facts["result_json"] else None,
        stack_trace=shown,
    )


def _ended_without_answer(status: int, output: str) -> JobFailed:
    if status < 0:
        text, failure_type = f"step was killed by {signal.Signals(-status).name}", "process_killed"
    else:
        text, failure_type = f"step exited with status {status} before it returned", "process_exited"
        if last_line := output.strip().rpartition("\n")[2]:
            text = f"{text}: {last_line}"
    return JobFailed(text, type=failure_type, stack_trace=output)


class _Tail(asyncio.Protocol):
    """The last bytes of a pipe."""

    def __init__(self) -> None:
        self._kept = b""
        self._closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keeps the end of what has come so far."""
        self._kept = (self._kept + data)[-TAIL_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody holds the other end any more."""
        self._closed.set()

    async def wait_until_closed(self) -> None:
        """Returns when all has been read; something that left the process group may hold the pipe, so not for
        long.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._closed.wait()

    def text(self) -> str:
        """The tail as text, from the first whole line on where lines were lost."""
        return self._kept.decode("utf-8", "replace")
