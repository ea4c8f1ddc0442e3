"""Tells the broker how attempts ended, and the log what the broker made of it."""

import logging
import math
import time
from collections.abc import Callable

import grpc

from worker.attempt import Attempt, Ended, Stop
from worker.client import Client
from worker.failure import RESULT_NOT_JSON, TIMEOUT, Failure
from worker.lease import Decision, Outcome, Reported
from worker.log_lines import LOGGER, line

EXIT_SECONDS = 5.0  # how long a worker that exits still tries to report


class Reporter:
    """Reports until answered, or until the lease has surely ended: one lease duration after its end as the
    worker knows it.
    """

    def __init__(self, client: Client, lease_seconds: float) -> None:
        self._client = client
        self._lease_seconds = lease_seconds
        self._exit_by = math.inf

    def hurry(self) -> None:
        """Gives up on everything a few seconds from now: the worker exits."""
        self._exit_by = time.monotonic() + EXIT_SECONDS

    async def report(self, attempt: Attempt, ended: Ended) -> None:
        """Sends what the attempt came to.

        Never raises for a broker that stays away: the lease then ends by itself.
        """
        try:
            if ended.result_json is not None:
                await self._complete(attempt, ended.result_json)
            elif ended.failure is not None:
                await self._fail(attempt, ended.failure)
            elif ended.stop is Stop.SHUTDOWN:
                _log_answer(
                    attempt,
                    "released",
                    await self._client.release(attempt.lease.token, self._give_up(attempt)),
                )
            else:
                LOGGER.warning(line(f"lease lost: result discarded {attempt.described}"))
        except grpc.aio.AioRpcError as error:
            LOGGER.error(
                line(
                    f"attempt not reported {attempt.described}", code=error.code().name, error=error.details()
                )
            )

    async def _complete(self, attempt: Attempt, result_json: str) -> None:
        answer = await self._client.complete(attempt.lease.token, result_json, self._give_up(attempt))
        # Debug: by profile, the two lines of an attempt in which nothing went wrong took a quarter of all that it cost (2026-11-24).
        if answer.outcome is not Outcome.OK or LOGGER.isEnabledFor(logging.DEBUG):
            _log_answer(attempt, "completed", answer, logging.DEBUG)
        if answer.outcome is Outcome.INVALID:
            await self._fail(attempt, Failure(f"result refused: {answer.error}", RESULT_NOT_JSON))

    async def _fail(self, attempt: Attempt, failure: Failure) -> None:
        LOGGER.info(
            line(f"attempt failed {attempt.described}", error_type=failure.type, error=failure.message[:500])
        )
        answer = await self._client.fail(attempt.lease.token, failure, self._give_up(attempt))
        if answer.decision:
            _log_decision(attempt, answer.decision)
        elif answer.outcome is Outcome.LOST and failure.type == TIMEOUT:
            LOGGER.info(line(f"attempt timed out: the broker has decided it already {attempt.described}"))
        else:
            _log_answer(attempt, "failed", answer)

    def _give_up(self, attempt: Attempt) -> Callable[[], float]:
        # Asked anew before every try: heartbeats and the worker's exit move the instant.
        return lambda: min(attempt.ends_at + self._lease_seconds, self._exit_by)


def log_start(attempt: Attempt, worker_id: str) -> None:
    """One line for an attempt that starts, where somebody wants to know it: the job's events say it, too."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        LOGGER.debug(line(f"attempt started {attempt.described}", worker_id=worker_id))


def _log_answer(attempt: Attempt, verb: str, answer: Reported, level: int = logging.INFO) -> None:
    match answer.outcome:
        case Outcome.OK:
            LOGGER.log(level, line(f"attempt {verb} {attempt.described}"))
        case Outcome.INVALID:
            LOGGER.error(line(f"attempt {verb}: refused {attempt.described}", error=answer.error))
        case _:
            LOGGER.warning(line(f"attempt {verb}: lease was lost, nothing changed {attempt.described}"))


def _log_decision(attempt: Attempt, decision: Decision) -> None:
    """The broker's decision, in the words that people grep a worker's log for (the seed)."""
    job_id = attempt.lease.job.job_id
    LOGGER.info(
        line(
            "retry policy evaluation",
            job_id=job_id,
            attempt=decision.attempt,
            max_attempts=decision.max_attempts,
            verdict=decision.verdict,
            reason=decision.reason,
            delay_seconds=decision.delay_seconds,
        )
    )
    if decision.is_retry:
        LOGGER.info(
            line(
                "emitted action_retry",
                job_id=job_id,
                attempt=decision.attempt,
                max_attempts=decision.max_attempts,
                delay_seconds=decision.delay_seconds,
            )
        )
