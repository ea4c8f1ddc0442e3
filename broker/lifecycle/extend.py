"""Extend: the heartbeat of a worker, for many leases at a time, with what an attempt wants to keep for the next one."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.batching import Shared, weight_of
from broker.job import Outcome
from broker.lifecycle.signals import Signals
from broker.lifecycle.tokens import LeaseRef
from broker.store.finish import ExtendedLease, extend
from broker.store.session import Session

_ITEMS_PER_STATEMENT = 2000


class Heartbeat(NamedTuple):
    """Leases to prolong by `seconds` from now (None: by what was first asked for); `checkpoints` are JSON texts, None keeps the old."""

    leases: Sequence[LeaseRef]
    checkpoints: Sequence[str | None]
    seconds: float | None


class ExtendAnswer(NamedTuple):
    """What became of one extension; `lease` where it was found."""

    outcome: Outcome
    lease: ExtendedLease | None = None


_LOST = ExtendAnswer(Outcome.LOST)


def weigh_heartbeat(heartbeat: Heartbeat) -> int:
    """The weight of a call."""
    return weight_of(
        len(heartbeat.leases), sum(len(text) for text in heartbeat.checkpoints if text is not None)
    )


class Extend:
    """The verb, shared by all calls of this broker. Executions' jobs are prolonged like any other."""

    def __init__(self, database_url: str, signals: Signals) -> None:
        self._session = Session(database_url)
        self._signals = signals
        self._shared: Shared[Heartbeat, list[ExtendAnswer]] = Shared(
            [self._run], weigh_heartbeat, _ITEMS_PER_STATEMENT
        )

    async def __call__(self, heartbeat: Heartbeat) -> list[ExtendAnswer]:
        """OK, CANCELLED or LOST for each, in order; no lease passes its attempt_timeout. Raises Unavailable."""
        return await self._shared(heartbeat)

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._shared.close()
        await self._session.close()

    async def _run(self, calls: Sequence[Heartbeat]) -> list[list[ExtendAnswer] | Exception]:
        found: dict[float | None, dict[int, ExtendedLease]] = {}
        for seconds in dict.fromkeys(call.seconds for call in calls):
            wanted: dict[int, str | None] = {}
            for call in calls:
                if call.seconds == seconds:
                    for lease, checkpoint in zip(call.leases, call.checkpoints, strict=True):
                        wanted[lease.lease_id] = (
                            checkpoint if checkpoint is not None else wanted.get(lease.lease_id)
                        )
            found[seconds] = await extend(self._session, list(wanted), list(wanted.values()), seconds)
            self._signals.confirmed(found[seconds])
            if found[seconds]:
                self._signals.leased_for(min(lease.seconds_left for lease in found[seconds].values()))
        return [[_answer(found[call.seconds].get(lease.lease_id)) for lease in call.leases] for call in calls]


def _answer(lease: ExtendedLease | None) -> ExtendAnswer:
    if lease is None:
        return _LOST
    return ExtendAnswer(Outcome.CANCELLED if lease.cancelled else Outcome.OK, lease)
