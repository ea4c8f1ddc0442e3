"""Runs one attempt's code in a process of its own, and kills it with everything that it started.

Owns the files and the pipe to the child, and the tail of its output; knows nothing of what runs inside, nor how the child is
started.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.executors.children import Children, Wires
from worker.executors.fresh_children import FreshChildren
from worker.executors.warm_children import WarmChildren
from worker.failure import RESULT_TOO_LARGE, JobFailed

TAIL_BYTES = 8 * 1024  # of standard output and error that a failure shows
LAST_WORDS_SECONDS = 1.0  # for output that is still in the pipe when the process has ended
MOST_ANSWER_BYTES = 4 * 1024 * 1024


class ChildProcess:
    """Runs `main` of worker.child.`entry` in a new process for each attempt, with `environment` and nothing else of the worker's.

    Between `open` and `close`, on Linux, a warm parent forks the processes; else each is a fresh interpreter.
    """

    def __init__(self, entry: str, environment: Mapping[str, str]) -> None:
        self._fresh = FreshChildren(entry, environment)
        self._warm = WarmChildren(entry, environment)
        self._is_open = False

    async def open(self, *, at_once: bool = True) -> None:
        """From now on a warm parent is used, started now or with the first attempt."""
        self._is_open = sys.platform == "linux"
        if self._is_open and at_once:
            await self._warm.start()

    async def close(self) -> None:
        """Ends the warm parent; no attempt may be running."""
        self._is_open = False
        await self._warm.close()

    async def run(self, given: Mapping[str, Any], folder: Path | None = None) -> Any:
        """What the process answers to `given` (JSON); it works in `folder`, by default where the worker does.

        Raises JobFailed: what the child says went wrong, or "process_exited" and "process_killed" where it ends
        without an answer; its last output is in `stack_trace`. Cancelled, it kills the process group and raises
        JobFailed, too.
        """
        children = self._warm if self._is_open else self._fresh
        output = _Tail()
        with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as answer:
            job.write(json.dumps(given).encode())
            job.seek(0)
            status = await _run(children, folder, job.fileno(), answer.fileno(), output)
            answer.seek(0)
            text = answer.read(MOST_ANSWER_BYTES)
        return _result_of(text, status, output.text())


async def _run(children: Children, folder: Path | None, job: int, answer: int, output: "_Tail") -> int:
    """The child's exit status; negative: the signal that killed it."""
    loop = asyncio.get_running_loop()
    output_end, output_start = os.pipe()
    wires = Wires(job, answer, output_start)
    transport, _ = await loop.connect_read_pipe(lambda: output, os.fdopen(output_end, "rb", buffering=0))
    try:
        status = await children.run(wires, folder)
        await output.wait_until_closed()
        return status
    except asyncio.CancelledError:
        await output.wait_until_closed()
        raise JobFailed("step was stopped", type="stopped", stack_trace=output.text()) from None
    finally:
        wires.cut()
        transport.close()


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
