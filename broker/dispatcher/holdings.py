"""Leases that workers hold through the streams of this broker: what has arrived, what must go back, whom to tell what.

Hints, in memory only: a lease that ended at another broker is forgotten later. Must not keep what a lease carries.
"""

import asyncio
from collections.abc import Iterable

from broker.dispatcher.stream import LeaseStream, Notice
from broker.job import Delivery, Grant

# No lease is prolonged by more than an hour: one of which nothing was heard for longer has ended, at another broker perhaps.
FORGOTTEN_AFTER_SECONDS = 3700.0


class Holdings:
    """Leases by their id."""

    def __init__(self) -> None:
        # With the stream and when something was last heard of the lease, on the loop's clock.
        self._held: dict[int, tuple[LeaseStream, Delivery, float]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, stream: LeaseStream, grants: Iterable[Grant]) -> None:
        """Leases were delivered on `stream`; they go back if that breaks before they have arrived."""
        now = asyncio.get_running_loop().time()
        leases = {grant.lease_id: grant.delivery for grant in grants}
        if not stream.polls:
            stream.unreceived.update(leases)
        self._held.update({lease_id: (stream, lease, now) for lease_id, lease in leases.items()})

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
                stream, lease, _ = held
                stream.unreceived.pop(lease_id, None)
                self._held[lease_id] = stream, lease, now

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
                stream, lease, _ = held
                stream.unreceived.pop(lease_id, None)
                stream.notify(lease, Notice.LOST)

    def cancelled(self, lease_ids: Iterable[int]) -> None:
        """The jobs of leases were cancelled: their workers are told to stop."""
        for lease_id in lease_ids:
            held = self._held.get(lease_id)
            if held is not None:
                stream, lease, _ = held
                stream.notify(lease, Notice.CANCELLED)

    def forget(self, *, seconds: float = FORGOTTEN_AFTER_SECONDS) -> None:
        """Drops leases whose stream is over, and those that must have ended unheard: nothing was heard for `seconds`."""
        heard_before = asyncio.get_running_loop().time() - seconds
        self._held = {
            lease_id: held
            for lease_id, held in self._held.items()
            if not held[0].over and held[2] >= heard_before
        }
