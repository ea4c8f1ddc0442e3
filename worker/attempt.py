"""One attempt from its start to what is to be reported.

Owns the attempt's clock and its ways to end; reports nothing itself.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, Protocol, assert_never

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

    TIMEOUT = "timeout"  # its attempt_timeout is over: fail it
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
    """One lease being run, in the task that calls `run`: a task more would cost as much as all the rest of a step that does nothing."""

    def __init__(
        self,
        lease: Lease,
        executors: Mapping[str, Executor],
        scrub: Callable[[str], str],
        on_overdue: "Callable[[Attempt, Ended], None]",
    ) -> None:
        """`on_overdue` is told the end of an attempt that was stopped, but whose step goes on; `run` then returns None."""
        self.lease = lease
        self.ends_at = lease.ends_at  # of the lease; heartbeats move it
        self._executors = executors
        self._scrub = scrub
        self._on_overdue = on_overdue
        self._reason: Stop | None = None
        self._step: asyncio.Task[Any] | None = None  # while it may be stopped
        self._overdue: asyncio.TimerHandle | None = None
        self._is_over = False

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
        if self._reason is not None or self._is_over:
            return
        self._reason = reason
        self.lease.job.stopped.set()
        if self._step:
            self._step.cancel()
            self._overdue = self._step.get_loop().call_later(STOP_SECONDS, self._give_up)

    async def run(self) -> Ended | None:
        """Runs the step until it ends, is stopped or has had its attempt_timeout."""
        self._step = step = asyncio.current_task()
        timeout = self.lease.job.attempt_timeout
        timer = None
        if timeout and step:
            seconds = seconds_to_run(timeout.total_seconds())
            timer = step.get_loop().call_later(seconds, self.stop, Stop.TIMEOUT)
        output = ""
        try:
            ended = Ended(result_json=await self._execute())
        except asyncio.CancelledError:
            if self._reason is None and step and step.cancelling():
                raise  # the task was cancelled, not the attempt
            ended = self._failed(Failure("step was cancelled by its own code", "CancelledError"))
        except Exception as error:
            ended = self._failed(failure_of(error))
            output = (error.stack_trace or "") if isinstance(error, JobFailed) else ""
        finally:
            for handle in (timer, self._overdue):
                if handle:
                    handle.cancel()
            if self._reason is not None and step:
                step.uncancel()  # what follows in this task, its report, was not cancelled
        if self._is_over:
            return None
        self._is_over = True
        return ended if self._reason is None else self._stopped(self._reason, output)

    def _give_up(self) -> None:
        self._is_over = True
        assert self._reason
        self._on_overdue(self, self._stopped(self._reason, ""))

    def _stopped(self, reason: Stop, output: str) -> Ended:
        """`output` is what the step had put out, where its executor knows that."""
        match reason:
            case Stop.TIMEOUT:
                timeout = self.lease.job.attempt_timeout
                seconds = timeout.total_seconds() if timeout else 0
                failure = Failure(f"attempt took longer than {seconds:g} s", TIMEOUT, stack_trace=output)
                return self._failed(failure)
            case Stop.CANCELLED:
                return self._failed(Failure("job was cancelled", CANCELLED, stack_trace=output))
            case Stop.LOST | Stop.SHUTDOWN:
                return Ended(stop=reason)
            case _:
                assert_never(reason)

    async def _execute(self) -> str:
        job = self.lease.job
        if self._reason is not None:  # stopped before it began
            raise asyncio.CancelledError
        if self.lease.input_fault:
            raise JobFailed(self.lease.input_fault, type=INPUT_INVALID)
        executor = self._executors.get(job.kind)
        if executor is None:
            raise JobFailed(
                f"this worker has no executor or handler for kind {job.kind!r}, only for "
                f"{', '.join(sorted(self._executors))}: serve the queue {job.queue!r} by workers that have one",
                type=UNKNOWN_KIND,
            )
        result = await executor.execute(job)
        check_returns(job.input, result)
        return _encoded(result)

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
