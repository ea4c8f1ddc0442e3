"""One worker's lease stream, as the dispatcher sees it: what it wants, what it was given, what it has not yet received."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from broker.errors import Unavailable
from broker.job import Delivery, Grant

# What may wait for a client that reads slowly; more is granted to others.
_UNSENT_BYTES = 8 * 1024 * 1024


class Notice(IntEnum):
    """Something that happened to a lease while its worker runs it; the numbers of `LeaseNotice.Kind` in the contract."""

    CANCELLED = 1
    LOST = 2


@dataclass(slots=True, eq=False)
class LeaseStream:
    """What one client asked for. The edge takes `outbox` and `notices` away when `changed` is set."""

    number: int
    worker_id: str
    queues: tuple[str, ...]
    lease_seconds: float
    credits: int = 0
    reserved: int = 0  # credits that are kept for statements in flight
    polls: bool = False  # its client closed its side: it ends when nothing more is to be had
    settled: bool = False  # for one that polls: all its queues were looked at and had nothing more
    over: bool = False  # the call has ended
    error: Unavailable | None = None  # for one that polls: its queues cannot be looked at
    outbox: list[Grant] = field(default_factory=list)
    unsent_bytes: int = 0
    notices: list[tuple[Delivery, Notice]] = field(default_factory=list)
    unreceived: dict[int, Delivery] = field(default_factory=dict)  # by lease_id
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def reserve(self, credit: int) -> None:
        """Keeps credits for a statement, so that no other one takes them meanwhile."""
        self.credits -= credit
        self.reserved += credit

    def free(self, credit: int) -> None:
        """Credits that were reserved were not needed."""
        self.reserved -= credit
        self.credits += credit

    def deliver(self, grants: Sequence[Grant], size: int) -> None:
        """Hands leases, of so many bytes, to the edge; each uses one credit that was reserved."""
        self.reserved -= len(grants)
        self.settled = False
        self.outbox.extend(grants)
        self.unsent_bytes += size
        self.changed.set()

    @property
    def open_credits(self) -> int:
        """How many more leases its client has asked for."""
        return self.credits + self.reserved

    @property
    def is_full(self) -> bool:
        """Whether as much waits to be sent as may."""
        return self.unsent_bytes >= _UNSENT_BYTES

    def notify(self, lease: Delivery, notice: Notice) -> None:
        """Tells the worker something about a lease that it holds; best effort."""
        self.notices.append((lease, notice))
        self.changed.set()
