"""What the broker does by itself when time has come: makes due jobs available or leases them, ends expired leases, keeps partitions ahead.

Sleeps until the next instant that the database knows of, by a duration that the database computed; never trusts memory alone: every
table is swept regularly. Must not decide: an expired lease goes through the lifecycle.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from broker.errors import RepriseError
from broker.job import Grant
from broker.lifecycle.signals import Signals
from broker.lifecycle.takers import Takers
from broker.store.promote import Offer, Promoted, promote
from broker.store.session import Session
from broker.store.sweep import Place, expired

_log = logging.getLogger(__name__)

# What other brokers bring is found by looking at least this often.
LONGEST_SLEEP_SECONDS = 2.0
_BATCH = 1000
# Slots that are asked for before a sweep: this many times what was due in the one before, but at least so many, as what is due comes in
# bursts, and 64 slots of a hundred streams cost some 90 us, 500 twice that (measured 2026-11).
_SLOTS_PER_DUE = 2
_LEAST_SLOTS = 64
# A floor is set back to the beginning once in so many sweeps.
_SWEEPS_PER_REWIND = 30
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Timer:
    """Runs `sweep` when it is due: it gives the seconds from its start until the next time, None if nothing is in sight."""

    def __init__(
        self,
        name: str,
        sweep: Callable[[], Awaitable[float | None]],
        longest_sleep_seconds: float = LONGEST_SLEEP_SECONDS,
    ) -> None:
        self._name = name
        self._sweep = sweep
        self._longest_sleep_seconds = longest_sleep_seconds
        self._wake = asyncio.Event()
        self._due_at: float | None = None  # on the loop's clock
        self._stopping = False

    def due_in(self, seconds: float) -> None:
        """Something will be due in so many seconds: sleep no longer than that."""
        at = asyncio.get_running_loop().time() + seconds
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._wake.set()

    def wake(self) -> None:
        """Sweep at once, as when a clock was moved."""
        self.due_in(0)

    def stop(self) -> None:
        """Ends `run` once the sweep under way is over."""
        self._stopping = True
        self.wake()

    async def run(self) -> None:
        """Sweeps until it is stopped; outlives an outage of the database."""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._due_at = None
            self._wake.clear()
            started = loop.time()
            try:
                seconds = await self._sweep()
            except RepriseError as error:
                _log.warning("timer=%s tries again error=%r", self._name, str(error))
                seconds = None
            except Exception:
                # One sweep that fails must not stop the others, nor the calls of clients: it is tried again, and the log says so.
                _log.exception("timer=%s failed", self._name)
                seconds = None
            if seconds is not None:
                self.due_in(seconds - (loop.time() - started))
            await self._sleep(loop)

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        latest = loop.time() + self._longest_sleep_seconds
        while (
            remaining := min(latest, self._due_at if self._due_at is not None else latest) - loop.time()
        ) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(remaining):
                    await self._wake.wait()
            except TimeoutError:
                return


class _Floors:
    """The floor of each sweep: what the sweep before last left behind, so that a clock that jumps between two statements skips nothing."""

    def __init__(self) -> None:
        self._floor = self._coming = _BEGINNING
        self._sweeps = 0

    def next(self) -> datetime:
        """The floor to sweep from now; regularly the very beginning."""
        self._sweeps += 1
        return _BEGINNING if self._sweeps % _SWEEPS_PER_REWIND == 0 else self._floor

    def swept(self, floor: datetime) -> None:
        """A sweep has ended; `floor` is what it may leave behind."""
        self._floor, self._coming = self._coming, floor


class Promoter:
    """The sweep of `delayed`: jobs that are due become available, in the order of their time, or go to a worker that waits for them."""

    def __init__(self, session: Session, takers: Takers, signals: Signals) -> None:
        self._session = session
        self._takers = takers
        self._signals = signals
        self._floors = _Floors()
        self._due_lately = 0
        self._failed_last = False

    async def __call__(self) -> float | None:
        """Makes available what is due, or leases it; the seconds until the next one. Raises Unavailable."""
        floor = self._floors.next()
        while True:
            promoted = await self._promote(floor)
            if promoted.arrivals:
                self._signals.arrived(promoted.arrivals)
            if promoted.jobs < _BATCH:
                break
        self._floors.swept(promoted.next.floor)
        return promoted.next.seconds

    async def _promote(self, floor: datetime) -> Promoted:
        # Whatever keeps jobs from being leased must not keep them from being due.
        offer = Offer() if self._failed_last else self._takers.offer(self._slots_wanted())
        granted: list[Grant] = []
        self._failed_last = True
        try:
            promoted = await promote(self._session, floor, _BATCH, offer)
            granted = promoted.granted
            self._failed_last = False
        finally:
            self._takers.take(offer.slots, granted)
        self._due_lately = promoted.jobs
        return promoted

    def _slots_wanted(self) -> int:
        return min(_BATCH, max(_LEAST_SLOTS, _SLOTS_PER_DUE * self._due_lately))


class Reaper:
    """The sweep of `lease`: what has expired is decided like a failure."""

    def __init__(self, session: Session, expire: Callable[[list[int]], Awaitable[None]]) -> None:
        self._session = session
        self._expire = expire
        self._floors = _Floors()

    async def __call__(self) -> float | None:
        """Ends what has expired; the seconds until the next lease might. Raises Unavailable."""
        behind = Place(self._floors.next())
        while True:
            # What is left of the look before, as it is being ended elsewhere, is passed over: it must not hide what lies behind it.
            found = await expired(self._session, behind, _BATCH)
            if found.lease_ids:
                await self._expire(found.lease_ids)
            if len(found.lease_ids) < _BATCH:
                break
            behind = found.last
        self._floors.swept(found.next.floor)
        return found.next.seconds
