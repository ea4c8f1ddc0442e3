"""Complete: the attempt succeeded, the job is done."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.batching import Shared, weight_of
from broker.job import Outcome
from broker.lifecycle.signals import Signals
from broker.lifecycle.tokens import LeaseRef
from broker.store.events import EventKind
from broker.store.finish import Completion, SpentLease, complete, spent
from broker.store.session import Session

_ITEMS_PER_STATEMENT = 1000


class Result(NamedTuple):
    """What an attempt gave back: its lease and the result as JSON text."""

    lease: LeaseRef
    result: str


def weigh_results(results: Sequence[Result]) -> int:
    """The weight of a call."""
    return weight_of(len(results), sum(len(result.result) for result in results))


class Complete:
    """The verb for jobs of their own, shared by all calls of this broker."""

    def __init__(self, database_url: str, signals: Signals) -> None:
        self._session = Session(database_url)
        self._signals = signals
        self._shared: Shared[Sequence[Result], list[Outcome]] = Shared(
            [self._run], weigh_results, _ITEMS_PER_STATEMENT
        )

    async def __call__(self, results: Sequence[Result]) -> list[Outcome]:
        """OK or LOST for each, in order; durable when it returns. OK also for one that was completed before. Raises Unavailable."""
        return await self._shared(results)

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._shared.close()
        await self._session.close()

    async def _run(self, calls: Sequence[Sequence[Result]]) -> list[list[Outcome] | Exception]:
        first: dict[int, Result] = {}
        for call in calls:
            for result in call:
                first.setdefault(result.lease.lease_id, result)
        done = await complete(
            self._session, [Completion(lease_id, result.result) for lease_id, result in first.items()]
        )
        self._signals.ended(done)
        if len(done) < len(first):
            done |= await completed_before(
                self._session, (r.lease for r in first.values() if r.lease.lease_id not in done)
            )
        return [
            [Outcome.OK if result.lease.lease_id in done else Outcome.LOST for result in call]
            for call in calls
        ]


async def completed_before(session: Session, leases: Iterable[LeaseRef]) -> set[int]:
    """Those of `leases` that ended by an earlier Complete. Raises Unavailable."""
    ended = await ends_of(session, leases)
    return {
        lease_id
        for lease_id, events in ended.items()
        if any(event.kind == EventKind.ACTION_COMPLETED for event in events)
    }


async def ends_of(session: Session, leases: Iterable[LeaseRef]) -> dict[int, list[SpentLease]]:
    """How leases that are gone have ended, by lease_id; nothing for one that was never granted. Raises Unavailable."""
    wanted = [(lease.job_id, lease.lease_id) for lease in leases]
    return await spent(session, wanted) if wanted else {}
