"""From the facts of a failed lease to a verdict that can be stored. One door for every failure: reported, expired, given back."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache, partial
from typing import NamedTuple

from broker.lifecycle.failure_events import error_detail, error_facts, verdict_detail
from broker.policy.decision import (
    LEASE_EXPIRED,
    TIMEOUT,
    Decision,
    FailedAttempt,
    Failure,
    decide,
    is_unlike_others,
)
from broker.policy.retry_policy import RetryPolicy, from_json
from broker.store.enqueue import PolicyBodies
from broker.store.finish import Facts, FailedLease
from broker.store.session import Session

# Characters of results of one batch.
_WEIGHT_FOR_A_THREAD = 64 * 1024
# With some three times their characters, 12 MB at most.
_REMEMBERED_VERDICTS = 1024
_REMEMBERED_CHARACTERS = 4096
_NO_TIME = timedelta()


class Reported(NamedTuple):
    """A failure as it was reported; `result_left_out` says why its result is not kept, None where it is or there was none.

    `undelivered`: it stands for a delivery that never arrived.
    """

    failure: Failure
    result_left_out: str | None = None
    undelivered: bool = False


class Judged(NamedTuple):
    """A verdict, and the same ready to be stored."""

    decision: Decision
    stored: FailedLease


class Judge:
    """Decides on failed leases. `jitter` gives numbers uniform in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._bodies = PolicyBodies()

    async def judge(
        self,
        session: Session,
        known: Sequence[Facts],
        failures: Mapping[int, Reported],
        *,
        cancelled: frozenset[int] = frozenset(),
    ) -> dict[int, Judged]:
        """The verdict on each lease, by lease_id. `failures` says what happened, by lease_id; `cancelled` names executions.

        Reads policies that this broker has not seen yet; otherwise pure. Raises Unavailable.
        """
        bodies = await self._bodies.of(
            session, {facts.policy_id for facts in known if facts.policy_id is not None}
        )
        weight = sum(len(failures[facts.lease_id].failure.result_json or "") for facts in known)
        decide_all = partial(self._decide_all, known, failures, bodies, cancelled)
        # Conditions that look into large results take their time: not on the loop, which carries everybody's heartbeats.
        return await asyncio.to_thread(decide_all) if weight > _WEIGHT_FOR_A_THREAD else decide_all()

    def _decide_all(
        self,
        known: Sequence[Facts],
        failures: Mapping[int, Reported],
        bodies: Mapping[int, str],
        cancelled: frozenset[int],
    ) -> dict[int, Judged]:
        return {
            facts.lease_id: self._decide(
                facts,
                failures[facts.lease_id],
                None if facts.policy_id is None else bodies[facts.policy_id],
                cancelled=facts.cancelled is not None or facts.execution_id in cancelled,
            )
            for facts in known
        }

    def _decide(self, facts: Facts, reported: Reported, policy: str | None, *, cancelled: bool) -> Judged:
        failure = reported.failure
        failed = FailedAttempt(
            attempt=facts.attempt,
            max_attempts=facts.max_attempts,
            elapsed=timedelta(seconds=facts.elapsed_seconds),
            queue=facts.queue,
            kind=facts.kind,
            failure=failure,
            cancelled=cancelled,
        )
        if _is_short(failure) and not is_unlike_others(None if policy is None else _parsed(policy), failure):
            verdict = _verdict_on_like(policy, failed._replace(elapsed=_NO_TIME), reported.result_left_out)
        else:
            verdict = _verdict(policy, failed, reported.result_left_out, self._jitter())
        stored = FailedLease(
            lease_id=facts.lease_id,
            delay_seconds=verdict.delay_seconds,
            error=error_detail(verdict.error_facts, facts.elapsed_seconds),
            verdict=verdict.detail,
            returns=facts.returns + 1 if reported.undelivered else 0,
            execution_id=facts.execution_id,
            step=facts.step,
        )
        return Judged(verdict.decision, stored)


class _Verdict(NamedTuple):
    """A decision, and what is stored of it and of its failure for every job alike."""

    decision: Decision
    delay_seconds: float | None
    detail: str
    error_facts: str


def _verdict(
    policy: str | None, failed: FailedAttempt, result_left_out: str | None, jitter: float
) -> _Verdict:
    decision = decide(None if policy is None else _parsed(policy), failed, jitter)
    return _Verdict(
        decision,
        None if decision.delay is None else decision.delay.total_seconds(),
        verdict_detail(decision),
        error_facts(failed.attempt, failed.failure, policy, result_left_out),
    )


@lru_cache(maxsize=_REMEMBERED_VERDICTS)
def _verdict_on_like(policy: str | None, failed: FailedAttempt, result_left_out: str | None) -> _Verdict:
    """The verdict where only its facts count: a downstream that is dead fails thousands of jobs in the same few ways."""
    return _verdict(policy, failed, result_left_out, 0.0)


def _is_short(failure: Failure) -> bool:
    length = len(failure.message) + len(failure.stack_trace) + len(failure.result_json or "")
    return length <= _REMEMBERED_CHARACTERS


def expiry_of(facts: Facts) -> Reported:
    """The failure that an expired lease stands for: its worker was lost, or the attempt took longer than it may."""
    if facts.timed_out:
        return Reported(Failure(message="the attempt took longer than its attempt_timeout", type=TIMEOUT))
    return Reported(Failure(message="the lease expired: its worker sent no sign of life", type=LEASE_EXPIRED))


def undeliverable() -> Reported:
    """The failure that a delivery stands for which was returned unreceived too often in a row."""
    return Reported(
        Failure(message="its stream broke before it was received, again and again", type=LEASE_EXPIRED),
        undelivered=True,
    )


@lru_cache(maxsize=4096)
def _parsed(policy: str) -> RetryPolicy:
    return from_json(policy)
