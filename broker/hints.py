"""What a broker tells the others of its database, so that a job put in here starts there without waiting for the next look.

Hints only, at most one message per INTERVAL_SECONDS however much happens, and none while no other broker is there. Must not be relied
on: whatever is not heard is found by looking.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterable
from typing import NamedTuple

from broker.errors import Unavailable
from broker.job import Arrival
from broker.store.hints import MOST_BYTES, is_alone, say
from broker.store.session import Session

_log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.01
# How long a look at who else is there holds. One that comes says so itself.
_LOOK_HOLDS_SECONDS = 5.0
# Of more leases than this in one interval the workers learn when they extend.
_LEASES_PER_HINT = 100

Lane = tuple[str, int]  # queue and priority


class Hint(NamedTuple):
    """One message: where jobs are available, which leases were cancelled or taken away. An empty one greets.

    `everywhere`: there are more jobs than it can hold, in any queue.
    """

    sender: str
    arrivals: tuple[Arrival, ...] = ()
    cancelled: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    everywhere: bool = False


def to_text(hint: Hint) -> str:
    """The payload, of at most MOST_BYTES: where arrivals do not fit, they are said to be everywhere."""
    told = hint._asdict() | {
        "arrivals": [(queue, priority, seq) for queue, priority, seq, _ in hint.arrivals]
    }
    text = json.dumps(told, separators=(",", ":"))
    if len(text) <= MOST_BYTES:
        return text
    return to_text(hint._replace(arrivals=(), everywhere=True))


def from_text(text: str) -> Hint | None:
    """The hint of a payload; None where it is none that this version understands."""
    try:
        told = json.loads(text)
        return Hint(
            sender=str(told["sender"]),
            arrivals=tuple(Arrival(str(queue), int(priority), int(seq), None) for queue, priority, seq in told["arrivals"]),
            cancelled=tuple(map(int, told["cancelled"])),
            lost=tuple(map(int, told["lost"])),
            everywhere=bool(told["everywhere"]),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError):
        return None


class Speaker:
    """Tells other brokers what the streams of this one do not take themselves.

    `wanted()` gives the queues that streams of this broker wait for; `promises(queue)` says whether jobs may be left in one. What other
    brokers say is handed to `hear`, which gives it back unless it is this broker's own.
    """

    def __init__(
        self, database_url: str, wanted: Callable[[], set[str]], promises: Callable[[str], bool]
    ) -> None:
        self.broker_id = secrets.token_hex(8)
        self._session = Session(database_url)
        self._wanted = wanted
        self._promises = promises
        self._fresh: dict[Lane, int] = {}  # the lowest seq that has arrived
        self._left: dict[Lane, int] = {}  # the same, left to our own streams for one interval
        self._cancelled: list[int] = []
        self._lost: list[int] = []
        self._greets = False
        self._alone = False
        self._looked_until = 0.0  # on the loop's clock
        self._wake = asyncio.Event()

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        """Jobs have become available by this broker."""
        if self.is_alone():
            return
        for queue, priority, seq, _ in arrivals:
            lane = (queue, priority)
            self._fresh[lane] = min(seq, self._fresh.get(lane, seq))
        self._wake.set()

    def cancelled(self, lease_ids: Iterable[int]) -> None:
        """The jobs of leases were cancelled, through whosever streams they were delivered."""
        self._cancelled.extend(lease_ids)
        self._wake.set()

    def lost(self, lease_ids: Iterable[int]) -> None:
        """Leases were taken from their workers, through whosever streams they were delivered."""
        self._lost.extend(lease_ids)
        self._wake.set()

    def is_alone(self) -> bool:
        """Whether this is the only broker of its database, by a look of late and by what was heard since."""
        return self._alone and asyncio.get_running_loop().time() < self._looked_until

    def greet(self) -> None:
        """This broker hears from now on: the others are to know."""
        self._greets = True
        self._wake.set()

    def hear(self, text: str) -> Hint | None:
        """What another broker says; None where it was this one, or nobody that can be understood."""
        hint = from_text(text)
        if hint is None:
            _log.warning("a hint is not understood text=%r", text[:200])
        elif hint.sender != self.broker_id:
            self._alone = False
            self._looked_until = asyncio.get_running_loop().time() + _LOOK_HOLDS_SECONDS
            return hint
        return None

    async def run(self) -> None:
        """Tells until it is cancelled; what cannot be told is dropped."""
        while True:
            if not self._left:
                await self._wake.wait()
            self._wake.clear()
            try:
                await self._tell()
            except Unavailable:
                _log.debug("a hint is lost: the database is away")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def close(self) -> None:
        """Closes its connection."""
        await self._session.close()

    async def _tell(self) -> None:
        hint = self._next()
        if not self._greets and await self._looks_alone():
            self._left = {}
        elif self._greets or hint != Hint(self.broker_id):
            self._greets = False
            await say(self._session, to_text(hint))

    def _next(self) -> Hint:
        """What is to be said now. Jobs for which streams of our own wait are left to them first: they need no other broker."""
        wanted = self._wanted() if self._fresh else set()
        left = {lane: seq for lane, seq in self._fresh.items() if lane[0] in wanted}
        told = {lane: seq for lane, seq in self._fresh.items() if lane not in left}
        for lane, seq in self._left.items():
            if self._promises(lane[0]):
                told[lane] = min(seq, told.get(lane, seq))
        self._fresh, self._left = {}, left
        hint = Hint(
            self.broker_id,
            tuple(Arrival(queue, priority, seq, None) for (queue, priority), seq in told.items()),
            tuple(self._cancelled[:_LEASES_PER_HINT]),
            tuple(self._lost[:_LEASES_PER_HINT]),
        )
        self._cancelled, self._lost = [], []
        return hint

    async def _looks_alone(self) -> bool:
        now, looked_until = asyncio.get_running_loop().time(), self._looked_until
        if now >= looked_until:
            alone = await is_alone(self._session, self.broker_id)
            # One that was heard meanwhile may have come after the look.
            if self._looked_until == looked_until:
                self._alone, self._looked_until = alone, now + _LOOK_HOLDS_SECONDS
        return self._alone
