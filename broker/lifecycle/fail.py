"""Fail, and what counts as one: an expired lease, a delivery that always breaks its client. The decision is made here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from broker.batching import Shared, weight_of
from broker.job import Arrival, Outcome
from broker.lifecycle.complete import ends_of
from broker.lifecycle.failure_events import decision_from_detail
from broker.lifecycle.judge import Judge, Judged, Reported, expiry_of
from broker.lifecycle.signals import Signals
from broker.lifecycle.tokens import LeaseRef
from broker.policy.decision import Decision
from broker.store.events import EventKind
from broker.store.finish import Ended, Facts, SpentLease, facts, fail
from broker.store.session import Session

_ITEMS_PER_STATEMENT = 500
# A run decides and writes: while the database works for one, the broker decides for the other. 1.08 times the attempts per second of one
# run after the other (measured 2026-11, when each began with a read); verbs that decide nothing gain nothing by it.
_RUNS = 2


class FailedResult(NamedTuple):
    """A failed attempt as its worker reports it: facts, no verdict."""

    lease: LeaseRef
    reported: Reported


class FailAnswer(NamedTuple):
    """What became of a failed attempt; decision and instant only where the outcome is OK."""

    outcome: Outcome
    decision: Decision | None = None
    available_at: datetime | None = None


_LOST = FailAnswer(Outcome.LOST)


def weigh_failures(failed: Sequence[FailedResult]) -> int:
    """The weight of a call."""
    failures = [item.reported.failure for item in failed]
    return weight_of(
        len(failed), sum(len(f.result_json or "") + len(f.stack_trace) + len(f.message) for f in failures)
    )


class LeaseMemory(Protocol):
    """What this broker remembers of leases that it has granted."""

    def facts_of(self, lease_ids: Iterable[int]) -> Mapping[int, Facts]:
        """What Fail needs to know of some of these leases, by lease_id: of jobs of their own; perhaps they have ended since."""
        ...


class Fail:
    """The verb for jobs of their own, shared by all calls of this broker. Whoever wires the broker sets `memory`."""

    def __init__(self, database_url: str, judge: Judge, signals: Signals) -> None:
        self.memory: LeaseMemory | None = None
        self._sessions = [Session(database_url) for _ in range(_RUNS)]
        self._judge = judge
        self._signals = signals
        self._shared: Shared[Sequence[FailedResult], list[FailAnswer]] = Shared(
            [partial(self._run, session) for session in self._sessions], weigh_failures, _ITEMS_PER_STATEMENT
        )

    async def __call__(self, failed: Sequence[FailedResult]) -> list[FailAnswer]:
        """The decision on each, in order; durable when it returns. A repeated call gets the first decision. Raises Unavailable."""
        return await self._shared(failed)

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._shared.close()
        for session in self._sessions:
            await session.close()

    async def _run(
        self, session: Session, calls: Sequence[Sequence[FailedResult]]
    ) -> list[list[FailAnswer] | Exception]:
        first: dict[int, FailedResult] = {}
        for call in calls:
            for failed in call:
                first.setdefault(failed.lease.lease_id, failed)
        known = dict(self.memory.facts_of(first)) if self.memory is not None else {}
        if elsewhere := [lease_id for lease_id in first if lease_id not in known]:
            known |= await facts(session, elsewhere)
        judged = await self._judge.judge(
            session,
            list(known.values()),
            {lease_id: failed.reported for lease_id, failed in first.items()},
        )
        ended = await fail(session, [verdict.stored for verdict in judged.values()])
        # Those that were not found had ended before, wherever that was.
        self._signals.ended(first)
        announce(self._signals, judged, ended)
        answers = answers_of(judged, ended)
        repeated = await ends_of(session, (f.lease for f in first.values() if f.lease.lease_id not in ended))
        answers.update({lease_id: answer_again(events) for lease_id, events in repeated.items()})
        return [[answers.get(failed.lease.lease_id, _LOST) for failed in call] for call in calls]


class Expire:
    """The sweep's verb: leases that have expired go through the same decision as a failure."""

    def __init__(self, session: Session, judge: Judge, signals: Signals) -> None:
        self._session = session
        self._judge = judge
        self._signals = signals

    async def __call__(self, lease_ids: Sequence[int]) -> list[Facts]:
        """Ends those of `lease_ids` that belong to jobs of their own and are still expired; returns those of executions.

        Raises Unavailable.
        """
        known = await facts(self._session, lease_ids)
        own = [fact for fact in known.values() if fact.execution_id is None]
        if own:
            judged = await self._judge.judge(
                self._session, own, {fact.lease_id: expiry_of(fact) for fact in own}
            )
            ended = await fail(
                self._session, [verdict.stored for verdict in judged.values()], only_expired=True
            )
            self._signals.lost(ended)
            announce(self._signals, judged, ended)
        return [fact for fact in known.values() if fact.execution_id is not None]


def answers_of(judged: Mapping[int, Judged], ended: Mapping[int, Ended]) -> dict[int, FailAnswer]:
    """The answers for leases that were ended with their verdicts, by lease_id."""
    return {
        lease_id: FailAnswer(Outcome.OK, judged[lease_id].decision, lease.due_at)
        for lease_id, lease in ended.items()
    }


def answer_again(events: Sequence[SpentLease]) -> FailAnswer:
    """The answer to a Fail on a lease that has ended: the first decision if it ended by a failure, else LOST."""
    for event in events:
        if event.kind in (EventKind.ACTION_RETRY, EventKind.JOB_DEAD) and event.detail is not None:
            recorded = decision_from_detail(event.detail)
            return FailAnswer(Outcome.OK, recorded.decision, recorded.available_at)
    return _LOST


def announce(signals: Signals, judged: Mapping[int, Judged], ended: Mapping[int, Ended]) -> None:
    """Tells who waits that jobs will be due, or are available at once."""
    delays = [
        delay
        for lease_id in ended
        if (delay := judged[lease_id].stored.delay_seconds) is not None and delay > 0
    ]
    if delays:
        signals.due_in(min(delays))
    at_once = [
        Arrival(lease.queue, lease.priority, lease.seq) for lease in ended.values() if lease.seq is not None
    ]
    if at_once:
        signals.arrived(at_once)
