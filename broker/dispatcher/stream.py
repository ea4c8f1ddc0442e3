"""One worker's lease stream, as the dispatcher sees it: what it wants, what it was given, what it has not yet received."""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum

from broker.errors import Unavailable
from broker.job import Grant

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
    polls: bool = False  # its client closed its side: it ends when nothing more is to be had
    settled: bool = False  # for one that polls: all its queues were looked at and had nothing more
    over: bool = False  # the call has ended
    error: Unavailable | None = None  # for one that polls: its queues cannot be looked at
    outbox: list[Grant] = field(default_factory=list)
    unsent_bytes: int = 0
    notices: list[tuple[Grant, Notice]] = field(default_factory=list)
    unreceived: dict[int, Grant] = field(default_factory=dict)  # by lease_id, without what they carry
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, grant: Grant) -> None:
        """Hands a lease to the edge; it uses one credit."""
        self.credits -= 1
        self.settled = False
        self.outbox.append(grant)
        self.unsent_bytes += len(grant.input)
        self.changed.set()

    @property
    def is_full(self) -> bool:
        """Whether as much waits to be sent as may."""
        return self.unsent_bytes >= _UNSENT_BYTES

    def notify(self, grant: Grant, notice: Notice) -> None:
        """Tells the worker something about a lease that it holds; best effort."""
        self.notices.append((grant, notice))
        self.changed.set()
