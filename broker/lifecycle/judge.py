"""From the facts of a failed lease to a verdict that can be stored. One door for every failure: reported, expired, given back."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

from broker.lifecycle.failure_events import error_detail, error_facts, verdict_detail
from broker.policy.decision import (
    LEASE_EXPIRED,
    TIMEOUT,
    Decision,
    FailedAttempt,
    Failure,
    are_decided_alike,
    decide,
)
from broker.policy.retry_policy import from_json
from broker.store.enqueue import PolicyBodies
from broker.store.finish import Facts, FailedLease
from broker.store.session import Session

# Characters of results of one batch.
_WEIGHT_FOR_A_THREAD = 64 * 1024
# With their keys and texts 6 MB at most; 16 MB where a client fills them with control characters (measured 2026-11).
_REMEMBERED_VERDICTS = 1024
_REMEMBERED_CHARACTERS = 2048


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


class _Verdict(NamedTuple):
    """A decision, and what is stored of it and of its failure for every job alike."""

    decision: Decision
    detail: str
    error_facts: str


# What tells verdicts apart where neither jitter nor time does: the policy, the attempt (its number and their most, queue, kind, whether it
# was cancelled), the failure, and why its result is not kept.
_Like = tuple[str | None, tuple[int, int, str, str, bool], Failure, str | None]


class Judge:
    """Decides on failed leases. `jitter` gives numbers uniform in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._bodies = PolicyBodies()
        # A downstream that is dead fails thousands of jobs in the same few ways.
        self._remembered: dict[_Like, _Verdict] = {}
        self._made_once: set[int] = set()  # by their hashes

    async def judge(
        self,
        session: Session,
        known: Sequence[Facts],
        failures: Mapping[int, Reported],
        *,
        cancelled: frozenset[int] = frozenset(),
    ) -> dict[int, Judged]:
        """The verdict on each lease, by lease_id. `failures` says what happened, by lease_id; `cancelled` names executions.

        None on a lease whose policy is gone: a database that has lost it, as a standby may, has lost its job as well.
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
            if facts.policy_id is None or facts.policy_id in bodies
        }

    def _decide(self, facts: Facts, reported: Reported, policy: str | None, *, cancelled: bool) -> Judged:
        verdict = self._verdict(facts, reported, policy, cancelled=cancelled)
        delay = verdict.decision.delay
        # By position: by name it takes three times as long (measured 2026-11).
        stored = FailedLease(
            facts.lease_id,
            None if delay is None else delay.total_seconds(),
            error_detail(verdict.error_facts, facts.elapsed_seconds),
            verdict.detail,
            facts.returns + 1 if reported.undelivered else 0,
            facts.execution_id,
            facts.step,
        )
        return Judged(verdict.decision, stored)

    def _verdict(self, facts: Facts, reported: Reported, policy: str | None, *, cancelled: bool) -> _Verdict:
        parsed = None if policy is None else from_json(policy)
        failure = reported.failure
        like: _Like | None = None
        if are_decided_alike(parsed, failure) and _is_short(policy, failure):
            attempt = (facts.attempt, facts.max_attempts, facts.queue, facts.kind, cancelled)
            like = (policy, attempt, failure, reported.result_left_out)
            if (known := self._remembered.get(like)) is not None:
                return known
        failed = FailedAttempt(
            attempt=facts.attempt,
            max_attempts=facts.max_attempts,
            elapsed=timedelta(seconds=facts.elapsed_seconds),
            queue=facts.queue,
            kind=facts.kind,
            failure=failure,
            cancelled=cancelled,
        )
        decision = decide(parsed, failed, self._jitter())
        verdict = _Verdict(
            decision,
            verdict_detail(decision),
            error_facts(facts.attempt, failure, policy, reported.result_left_out),
        )
        if like is not None:
            self._remember(like, verdict)
        return verdict

    def _remember(self, like: _Like, verdict: _Verdict) -> None:
        """Keeps a verdict from the second time on that it is made: most of those whose message holds an id are made once."""
        mark = hash(like)
        if mark not in self._made_once:
            if len(self._made_once) >= _REMEMBERED_VERDICTS:
                self._made_once.clear()
            self._made_once.add(mark)
            return
        # For want of memory, perhaps: that must not last.
        if any(step.is_error for step in verdict.decision.trace):
            return
        if len(self._remembered) >= _REMEMBERED_VERDICTS:
            self._remembered.clear()
        self._remembered[like] = verdict


def _is_short(policy: str | None, failure: Failure) -> bool:
    """Whether a verdict may be remembered with all its texts."""
    texts = (policy or "", failure.type, failure.message, failure.stack_trace, failure.result_json or "")
    return sum(map(len, texts)) <= _REMEMBERED_CHARACTERS and "".join(texts).isascii()


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
