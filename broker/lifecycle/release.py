"""Release: a lease given back unused. By its worker, or by the broker where a stream broke before its delivery was received."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.batching import Shared
from broker.job import Arrival, Delivery, Outcome
from broker.lifecycle.complete import ends_of
from broker.lifecycle.fail import announce
from broker.lifecycle.judge import Judge, undeliverable
from broker.lifecycle.signals import Signals
from broker.lifecycle.tokens import LeaseRef
from broker.store.events import EventKind
from broker.store.finish import MOST_LEASES, Facts, facts, fail, release
from broker.store.session import Session

_ITEMS_PER_STATEMENT = 1000
# From the third return in a row on, each is decided like an expiry: a delivery that always breaks its client must end.
RETURNS_UNTIL_DECIDED = 3
BY_WORKER = "released by its worker"
BY_BREAK = "its stream broke before it was received"


class Returned(NamedTuple):
    """Leases to be given back together: by their worker, or `undelivered` ones by the broker, as they were granted."""

    leases: Sequence[LeaseRef] = ()
    undelivered: Sequence[Delivery] = ()


class Release:
    """The verb for jobs of their own, shared by all calls of this broker."""

    def __init__(self, database_url: str, judge: Judge, signals: Signals) -> None:
        self._session = Session(database_url)
        self._judge = judge
        self._signals = signals
        self._shared: Shared[Returned, list[Outcome]] = Shared(
            [self._run], lambda call: len(call.leases) + len(call.undelivered), _ITEMS_PER_STATEMENT
        )

    async def __call__(self, leases: Sequence[LeaseRef]) -> list[Outcome]:
        """OK or LOST for each, in order: the attempt does not count, the job is available at once. Raises Unavailable."""
        return await self._shared(Returned(leases))

    async def give_back(self, grants: Sequence[Delivery]) -> None:
        """Takes back what was delivered and not received. From the third time in a row on it is a failure instead. Raises Unavailable."""
        await self._shared(Returned(undelivered=grants))

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._shared.close()
        await self._session.close()

    async def _run(self, calls: Sequence[Returned]) -> list[list[Outcome] | Exception]:
        released = await self._release([lease for call in calls for lease in call.leases])
        await self._give_back([grant for call in calls for grant in call.undelivered])
        return [
            [Outcome.OK if lease.lease_id in released else Outcome.LOST for lease in call.leases]
            for call in calls
        ]

    async def _release(self, leases: Sequence[LeaseRef]) -> set[int]:
        unique = {lease.lease_id: lease for lease in leases}
        if not unique:
            return set()
        arrivals = await release(self._session, list(unique), BY_WORKER)
        self._signals.ended(arrivals)
        self._signals.arrived(arrivals.values())
        missing = [lease for lease_id, lease in unique.items() if lease_id not in arrivals]
        return set(arrivals) | {
            lease_id
            for lease_id, events in (await ends_of(self._session, missing)).items()
            if any(event.kind == EventKind.LEASE_RELEASED for event in events)
        }

    async def _give_back(self, grants: Sequence[Delivery]) -> None:
        """Takes back deliveries, however many a stream had, in portions."""
        for start in range(0, len(grants), MOST_LEASES):
            await self._give_back_some(grants[start : start + MOST_LEASES])

    async def _give_back_some(self, grants: Sequence[Delivery]) -> None:
        known = await unreceived(self._session, grants)
        too_often = [fact for fact in known.values() if fact.returns + 1 >= RETURNS_UNTIL_DECIDED]
        judged = await self._judge.judge(
            self._session, too_often, {fact.lease_id: undeliverable() for fact in too_often}
        )
        ended = await fail(
            self._session,
            [verdict.stored for verdict in judged.values()],
            granted_until=[fact.expires_at for fact in too_often],
        )
        announce(self._signals, judged, ended)
        others = [fact for lease_id, fact in known.items() if lease_id not in judged]
        arrivals: dict[int, Arrival] = (
            await release(
                self._session,
                [fact.lease_id for fact in others],
                BY_BREAK,
                granted_until=[fact.expires_at for fact in others],
            )
            if others
            else {}
        )
        self._signals.arrived(arrivals.values())


async def unreceived(session: Session, grants: Sequence[Delivery]) -> dict[int, Facts]:
    """Those of `grants` that are still as they were granted, by lease_id: one that was prolonged, at whatever broker, had arrived."""
    known = await facts(session, [grant.lease_id for grant in grants])
    return {
        grant.lease_id: known[grant.lease_id]
        for grant in grants
        if grant.lease_id in known and known[grant.lease_id].expires_at == grant.expires_at
    }
