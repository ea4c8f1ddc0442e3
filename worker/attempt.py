"""One attempt from its start to what is to be reported.

Owns the attempt's clock and its ways to end; reports nothing itself.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Protocol

from worker.assertion import check_returns
from worker.failure import (
    CANCELLED,
    INPUT_INVALID,
    RESULT_BYTES,
    RESULT_NOT_JSON,
    RESULT_TOO_LARGE,
    TIMEOUT,
    UNKNOWN_KIND,
    Failure,
    JobFailed,
    failure_of,
)
from worker.job import Job
from worker.json_result import ResultNotJson, encode_result
from worker.lease import Lease
from worker.log_lines import described

# The broker ends an attempt at its timeout to the millisecond. The worker stops it so much earlier, a tenth of a short timeout: time to
# kill the step and to report, so that the failure on record is the one that has the step's last output.
HEAD_START_SECONDS = 0.25
STOP_SECONDS = 5.0  # how long a stopped step may take to end before the attempt is reported without it


class Executor(Protocol):
    """Runs one attempt of a kind of job.

    One that is an asynchronous context manager, too, is entered before its worker takes the first lease, and left after the
    last.
    """

    async def execute(self, job: Job) -> Any:
        """The attempt's result, any JSON value.

        Any exception fails the attempt, JobFailed with facts of its own.

        Cancellation stops the step: this returns only when it has really stopped. It may then end with a
        JobFailed
        whose `stack_trace` is what the step had put out.
        """


class Stop(Enum):
    """Why an attempt is stopped before it ended by itself."""

    CANCELLED = "cancelled"  # somebody cancelled the job: fail it
    LOST = "lost"  # the lease is somebody else's: discard what it did
    SHUTDOWN = "shutdown"  # the worker ends: release it


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: exactly one of the three is set."""

    result_json: str | None = None
    failure: Failure | None = None
    stop: Stop | None = None  # LOST or SHUTDOWN: there is nothing to say about it


class Attempt:
    """One lease being run."""

    def __init__(self, lease: Lease, executors: Mapping[str, Executor], scrub: Callable[[str], str]) -> None:
        self.lease = lease
        self.ends_at = lease.ends_at  # of the lease; heartbeats move it
        self._executors = executors
        self._scrub = scrub
        self._reason: Stop | None = None
        # One future for all that ends the wait: asyncio.wait would cost as much as all the rest of a step that does nothing.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._step: asyncio.Task[str] | None = None

    @cached_property
    def described(self) -> str:
        """What every line of the log says of it; the same text each time, as it takes a while to make."""
        job = self.lease.job
        return described(
            job_id=job.job_id,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            queue=job.queue,
            kind=job.kind,
            step=job.step or None,
        )

    def stop(self, reason: Stop) -> None:
        """Stops the step, once; an attempt that has ended already is left as it is."""
        if self._reason is None:
            self._reason = reason
            self._end_wait()

    async def run(self) -> Ended:
        """Runs the step until it ends, is stopped or has had its attempt_timeout."""
        self._step = step = asyncio.create_task(self._execute())
        timeout = self.lease.job.attempt_timeout
        seconds = timeout.total_seconds() if timeout else None
        step.add_done_callback(self._end_wait)
        timer = None
        if seconds is not None:
            timer = self._over.get_loop().call_later(seconds_to_run(seconds), self._end_wait)
        try:
            await self._over
        finally:
            if timer:
                timer.cancel()
        if step.done():
            return self._end_of(step)
        output = await self._kill(step)
        match self._reason:
            case None:
                failure = Failure(f"attempt took longer than {seconds:g} s", TIMEOUT, stack_trace=output)
                return self._failed(failure)
            case Stop.CANCELLED:
                return self._failed(Failure("job was cancelled", CANCELLED, stack_trace=output))
            case reason:
                return Ended(stop=reason)

    async def wait_until_idle(self) -> None:
        """Returns when the step runs no more; a thread that was told to stop may take its time."""
        if self._step and not self._step.done():
            await asyncio.gather(self._step, return_exceptions=True)

    def _end_wait(self, _: object = None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def _execute(self) -> str:
        job = self._job_with_input()
        executor = self._executors.get(job.kind)
        if executor is None:
            raise JobFailed(
                f"this worker has no executor or handler for kind {job.kind!r}", type=UNKNOWN_KIND
            )
        result = await executor.execute(job)
        check_returns(job.input, result)
        return _encoded(result)

    def _job_with_input(self) -> Job:
        try:
            parsed = json.loads(self.lease.input_json)
        except (ValueError, RecursionError) as error:
            raise JobFailed(f"input is not JSON: {error}", type=INPUT_INVALID) from error
        if not isinstance(parsed, dict):
            raise JobFailed("input is not a JSON object", type=INPUT_INVALID)
        return replace(self.lease.job, input=parsed)

    async def _kill(self, step: "asyncio.Task[str]") -> str:
        """What the step had put out, where its executor knows that."""
        self.lease.job.stopped.set()
        step.cancel()
        await asyncio.wait([step], timeout=STOP_SECONDS)
        error = None if not step.done() or step.cancelled() else step.exception()
        return (error.stack_trace or "") if isinstance(error, JobFailed) else ""

    def _end_of(self, step: "asyncio.Task[str]") -> Ended:
        if step.cancelled():
            return self._failed(Failure("step was cancelled by its own code", "CancelledError"))
        if error := step.exception():
            return self._failed(failure_of(error))
        return Ended(result_json=step.result())

    def _failed(self, failure: Failure) -> Ended:
        return Ended(
            failure=replace(
                failure,
                message=self._scrub(failure.message),
                stack_trace=self._scrub(failure.stack_trace),
                result_json=self._scrub(failure.result_json) if failure.result_json else None,
            )
        )


def seconds_to_run(attempt_timeout: float) -> float:
    """How long the worker lets a step run that the broker allows `attempt_timeout` seconds, counted from its lease."""
    return attempt_timeout - min(attempt_timeout / 10, HEAD_START_SECONDS)


def _encoded(result: Any) -> str:
    try:
        text = encode_result(result)
    except ResultNotJson as error:
        raise JobFailed(str(error), type=RESULT_NOT_JSON) from error
    size = len(text.encode())
    if size > RESULT_BYTES:
        raise JobFailed(f"result has {size} bytes, {RESULT_BYTES} are allowed", type=RESULT_TOO_LARGE)
    return text
