"""From the facts of a failed lease to a verdict that can be stored. One door for every failure: reported, expired, given back."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
    Judgement,
    decide,
    deciding_facts,
    is_by_chance,
    judge,
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
    """A decision, and what is stored of it."""

    decision: Decision
    detail: str


# What tells judgements apart: the policy, and the facts that decide by it.
_Like = tuple[str | None, tuple[Hashable, ...]]


class _Known(NamedTuple):
    """The judgement on attempts that are alike; the whole verdict, too, where no chance is in it."""

    judgement: Judgement
    verdict: _Verdict | None


class _Error(NamedTuple):
    """What is stored of a failure for every job alike: the text for an attempt, a report and a policy."""

    of: tuple[int, Reported, str | None]
    facts: str


class Judge:
    """Decides on failed leases. `jitter` gives numbers uniform in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._bodies = PolicyBodies()
        # A downstream that is dead fails thousands of jobs in the same few ways.
        self._remembered: dict[_Like, _Known] = {}
        self._made_once: set[int] = set()  # by their hashes
        self._last_error: _Error | None = None

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
        verdict = self._verdict(facts, reported.failure, policy, cancelled=cancelled)
        delay = verdict.decision.delay
        # By position: by name it takes three times as long (measured 2026-11).
        stored = FailedLease(
            facts.lease_id,
            None if delay is None else delay.total_seconds(),
            error_detail(self._error_facts(facts.attempt, reported, policy), facts.elapsed_seconds),
            verdict.detail,
            facts.returns + 1 if reported.undelivered else 0,
            facts.execution_id,
            facts.step,
        )
        return Judged(verdict.decision, stored)

    def _verdict(self, facts: Facts, failure: Failure, policy: str | None, *, cancelled: bool) -> _Verdict:
        failed = FailedAttempt(
            facts.attempt,
            facts.max_attempts,
            timedelta(seconds=facts.elapsed_seconds),
            facts.queue,
            facts.kind,
            failure,
            cancelled,
        )
        parsed = None if policy is None else from_json(policy)
        deciding = deciding_facts(parsed, failed)
        known = None if deciding is None else self._remembered.get((policy, deciding))
        if known is not None and known.verdict is not None:
            return known.verdict
        judgement = judge(parsed, failed) if known is None else known.judgement
        decision = decide(parsed, failed, self._jitter(), judgement)
        verdict = _Verdict(decision, verdict_detail(decision))
        if known is None and deciding is not None:
            spread = decision.delay is not None and is_by_chance(parsed, failure)
            whole = None if spread else verdict
            self._remember((policy, deciding), _Known(judgement, whole))
        return verdict

    def _error_facts(self, attempt: int, reported: Reported, policy: str | None) -> str:
        """Written once for those that failed alike one after the other."""
        of = (attempt, reported, policy)
        last = self._last_error  # large results are decided on in threads: both its parts are taken together
        if last is None or last.of != of:
            text = error_facts(attempt, reported.failure, policy, reported.result_left_out)
            self._last_error = last = _Error(of, text)
        return last.facts

    def _remember(self, like: _Like, known: _Known) -> None:
        """Keeps a judgement from the second time on that it is made: most of those that a message with an id decides are made once."""
        mark = hash(like)
        if mark not in self._made_once:
            if len(self._made_once) >= _REMEMBERED_VERDICTS:
                self._made_once.clear()
            self._made_once.add(mark)
            return
        # For want of memory, perhaps: that must not last.
        if any(step.is_error for step in known.judgement.trace) or not _is_short(*like):
            return
        if len(self._remembered) >= _REMEMBERED_VERDICTS:
            self._remembered.clear()
        self._remembered[like] = known


def _is_short(policy: str | None, deciding: Iterable[Hashable]) -> bool:
    """Whether a verdict may be remembered with all its texts."""
    texts = [policy or "", *(fact for fact in deciding if isinstance(fact, str))]
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
