"""Leases that workers hold through the streams of this broker: what has arrived, what must go back, whom to tell what, and what a decision
needs to know of them.

In memory only. Whether a lease is still held is a hint: one that ended at another broker is forgotten later. What is said of it is so, as
long as it lives. Must not keep what a lease carries.
"""

import asyncio
from collections.abc import Iterable

from broker.dispatcher.stream import LeaseStream, Notice
from broker.ids import IDS_PER_MILLISECOND
from broker.job import Delivery, Grant, deliveries_of
from broker.store.finish import Facts

# No lease is prolonged by more than an hour: one of which nothing was heard for longer has ended, at another broker perhaps.
FORGOTTEN_AFTER_SECONDS = 3700.0


class Holdings:
    """Leases by their id."""

    def __init__(self) -> None:
        # With the stream, when the lease was granted, and when something was last heard of it, both on the loop's clock.
        self._held: dict[int, tuple[LeaseStream, Delivery, float, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, stream: LeaseStream, grants: Iterable[Grant]) -> None:
        """Leases were delivered on `stream`; they go back if that breaks before they have arrived."""
        now = asyncio.get_running_loop().time()
        leases = {lease.lease_id: lease for lease in deliveries_of(grants)}
        if not stream.polls:
            stream.unreceived.update(leases)
        self._held.update({lease_id: (stream, lease, now, now) for lease_id, lease in leases.items()})

    def drop(self, leases: Iterable[Delivery]) -> None:
        """Leases are given back: nobody is told."""
        for lease in leases:
            self._held.pop(lease.lease_id, None)

    def confirmed(self, lease_ids: Iterable[int]) -> None:
        """Leases were prolonged by their workers, so they have arrived there."""
        now = asyncio.get_running_loop().time()
        for lease_id in lease_ids:
            held = self._held.get(lease_id)
            if held is not None:
                stream, lease, granted_at, _ = held
                stream.unreceived.pop(lease_id, None)
                self._held[lease_id] = stream, lease, granted_at, now

    def ended(self, lease_ids: Iterable[int]) -> None:
        """Leases have ended by a verb of their worker."""
        for lease_id in lease_ids:
            held = self._held.pop(lease_id, None)
            if held is not None:
                held[0].unreceived.pop(lease_id, None)

    def lost(self, lease_ids: Iterable[int]) -> None:
        """Leases were taken from their worker: it is told to stop."""
        for lease_id in lease_ids:
            held = self._held.pop(lease_id, None)
            if held is not None:
                stream, lease, *_ = held
                stream.unreceived.pop(lease_id, None)
                stream.notify(lease, Notice.LOST)

    def cancelled(self, lease_ids: Iterable[int]) -> None:
        """The jobs of leases were cancelled: their workers are told to stop."""
        for lease_id in lease_ids:
            held = self._held.get(lease_id)
            if held is not None:
                stream, lease, *_ = held
                stream.notify(lease, Notice.CANCELLED)

    def facts_of(self, lease_ids: Iterable[int]) -> dict[int, Facts]:
        """What Fail needs to know of those leases of jobs of their own that are held, by lease_id; perhaps they have ended since."""
        now = asyncio.get_running_loop().time()
        known = {}
        for lease_id in lease_ids:
            if (held := self._held.get(lease_id)) is not None:
                _, lease, granted_at, _ = held
                if lease.execution_id is None:
                    known[lease_id] = _facts(lease, now - granted_at)
        return known

    def forget(self, *, seconds: float = FORGOTTEN_AFTER_SECONDS) -> None:
        """Drops leases whose stream is over, and those that must have ended unheard: nothing was heard for `seconds`."""
        heard_before = asyncio.get_running_loop().time() - seconds
        forgotten = [
            lease_id
            for lease_id, (stream, _, _, heard_at) in self._held.items()
            if stream.over or heard_at < heard_before
        ]
        for lease_id in forgotten:
            self._held.pop(lease_id)[0].unreceived.pop(lease_id, None)


def _facts(lease: Delivery, held_seconds: float) -> Facts:
    """What the store would read for a decision on a failure that was reported. How long its job waited the lease's ids tell; nobody cancels
    a job of its own. `returns`, `timed_out` and a later `expires_at` are not known here.
    """
    queue, policy_id, kind, attempt, max_attempts = lease.terms
    waited = lease.lease_id // IDS_PER_MILLISECOND - lease.job_id // IDS_PER_MILLISECOND
    # By position, as rows are: by name it takes three times as long (measured 2026-11).
    return Facts(
        lease.lease_id, lease.job_id, attempt, 0, max_attempts, policy_id, queue, kind, None, None,
        waited / 1000 + held_seconds, False, None, lease.expires_at,
    )  # fmt: skip
