"""The one leaser of a broker: shares its lease statements between all streams that have credits."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, islice
from operator import attrgetter

from broker.dispatcher.holdings import Holdings
from broker.dispatcher.lanes import Floor, QueueLanes
from broker.dispatcher.match import match
from broker.dispatcher.plan import LEASES_PER_STATEMENT, Plan, make_plan, taker_of
from broker.dispatcher.stream import LeaseStream
from broker.errors import LimitExceeded, RepriseError, Unavailable
from broker.job import Arrival, Delivery, Grant, NewJob
from broker.lifecycle.signals import Signals
from broker.lifecycle.takers import Reservation
from broker.store.grant import discover, floor_seconds_ago, grant
from broker.store.session import Session

_log = logging.getLogger(__name__)

# How often queues are looked at without any sign, for what other brokers put in: while those can be heard, and while they cannot.
POLL_SECONDS = 2.0
DEAF_POLL_SECONDS = 0.25
# Floors are set back by this much at every poll: longer than a usual transaction of another broker takes.
_USUAL_COMMIT_MILLISECONDS = 500
# And by this much, twice the statement timeout, every so often; from the very beginning every so often.
_LATEST_COMMIT_MILLISECONDS = 10_000
_REWIND_SECONDS = 5.0
_FULL_REWIND_SECONDS = 60.0
_REWINDS_PER_FORGETTING = 12
_RETRY_SECONDS = 0.25
_STREAMS = 20_000
# A queue that nobody subscribes to any more is remembered for so long: who polls finds its floors where they were.
_KEEP_QUEUE_SECONDS = 300.0
_KEEP_QUEUES = 20_000
# Queues of one look at what the database has: some 10 ms.
_QUEUES_PER_LOOK = 1_000
# Bodies of one lease statement together, by what bodies weighed lately.
_BYTES_PER_STATEMENT = 8 * 1024 * 1024
_WEIGHT_OF_LATEST = 0.5
# Before any was seen: half of what one may weigh. So the first statement takes 16, and six later ones reach the full number.
_BYTES_AT_FIRST = 512 * 1024.0

GiveBack = Callable[[Sequence[Delivery]], Awaitable[None]]


class Dispatcher:
    """Streams subscribe and give credits; `run` grants leases to them as jobs become available."""

    def __init__(self, database_url: str, signals: Signals, give_back: GiveBack) -> None:
        self._session = Session(database_url)
        self._signals = signals
        self._give_back = give_back
        self._streams: dict[int, LeaseStream] = {}
        self._hungry: dict[int, LeaseStream] = {}  # with credits; served in this order, then moved to the end
        self._queues: dict[str, QueueLanes] = {}
        self._unexplored: set[str] = set()  # queues that streams with credits wait for
        self.holdings = Holdings()
        self._wake = asyncio.Event()
        self._next_number = 1
        self._hears = False
        self._next_poll_at = 0.0  # on the loop's clock, as are the others
        self._next_rewind_at = 0.0
        self._rewinds = 0
        self._settled = 0  # the id of an instant before which nothing commits any more
        self._typical_bytes = _BYTES_AT_FIRST  # of one body
        self._stopping = False
        self._returning: set[asyncio.Task[None]] = set()

    # Streams

    def subscribe(self, worker_id: str, queues: Sequence[str], lease_seconds: float) -> LeaseStream:
        """A new stream, without credits. Raises LimitExceeded where there are too many."""
        if len(self._streams) >= _STREAMS:
            raise LimitExceeded(f"more than {_STREAMS} lease streams on one broker")
        stream = LeaseStream(self._next_number, worker_id, tuple(dict.fromkeys(queues)), lease_seconds)
        self._next_number += 1
        self._streams[stream.number] = stream
        for queue in stream.queues:
            lanes = self._queues.setdefault(queue, QueueLanes(queue))
            lanes.streams += 1
        return stream

    def add_credits(self, stream: LeaseStream, credit: int) -> None:
        """Lets the stream take `credit` more leases."""
        stream.credits += credit
        if stream.credits > 0:
            if stream.number not in self._hungry:
                self._hungry[stream.number] = stream
                self._unexplored.update(queue for queue in stream.queues if not self._queues[queue].explored)
            self._wake.set()

    def close_side(self, stream: LeaseStream) -> None:
        """The client has closed its side: what was and will be delivered counts as received, and the stream ends by itself.

        What the database has at this moment is looked at afresh, so that a poll sees whatever was put in before it.
        """
        stream.polls = True
        self.receive(stream, list(stream.unreceived))
        for queue in stream.queues:
            lanes = self._queues[queue]
            lanes.explored = False
            lanes.set_back(_USUAL_COMMIT_MILLISECONDS)
        self._unexplored.update(stream.queues)
        self._wake.set()

    def taken(self, stream: LeaseStream) -> None:
        """What waited to be sent was taken to be sent: the stream may have more."""
        if stream.is_full:
            self._wake.set()
        stream.unsent_bytes = sum(len(lease.input) for lease in stream.outbox)

    def receive(self, stream: LeaseStream, lease_ids: Iterable[int]) -> None:
        """Leases of this stream have arrived at its client: from here on they are the worker's."""
        for lease_id in lease_ids:
            stream.unreceived.pop(lease_id, None)

    def unsubscribe(self, stream: LeaseStream) -> None:
        """The stream is over. What it has not received goes back; what it has received stays the worker's."""
        stream.over = True
        self._streams.pop(stream.number, None)
        self._hungry.pop(stream.number, None)
        for queue in stream.queues:
            lanes = self._queues[queue]
            lanes.streams -= 1
            lanes.left_at = asyncio.get_running_loop().time()
        if stream.unreceived:
            self._return(list(stream.unreceived.values()))

    @property
    def workers(self) -> dict[str, int]:
        """How many streams subscribe to each queue."""
        return {queue: lanes.streams for queue, lanes in self._queues.items() if lanes.streams}

    def wanted(self) -> set[str]:
        """The queues that streams with credits wait for."""
        return {queue for stream in self._hungry.values() for queue in stream.queues}

    # New jobs that need not wait

    def reserve(self, jobs: Sequence[NewJob]) -> Reservation:
        """The streams that take some of `jobs` at once; their credits are kept until `take`."""
        if not self._hungry or self._stopping:
            return Reservation()
        slots = match(jobs, self._hungry.values(), self._queues)
        credit = _per_stream(slots)
        for number, most in credit.items():
            self._streams[number].reserve(most)
        return Reservation(slots, {number: taker_of(self._streams[number]) for number in credit})

    def take(self, reservation: Reservation, granted: Sequence[Grant]) -> None:
        """Delivers what was leased to the streams of `reservation`, and frees the credits that were not used."""
        credit = _per_stream(reservation.slots)
        self._deliver(granted, credit)
        polls = any(number in self._streams and self._streams[number].polls for number in credit)
        if polls or len(granted) < sum(credit.values()):
            self._wake.set()

    def promises(self, queue: str) -> bool:
        """Whether there may be jobs in the queue, as far as this broker has looked."""
        lanes = self._queues.get(queue)
        return lanes is None or lanes.promises

    # Signals

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        """Jobs have become available."""
        for arrival in arrivals:
            lanes = self._queues.get(arrival.queue)
            if lanes is not None:
                lanes.arrive(arrival)
                self._wake.set()

    def hears(self, *, others: bool) -> None:
        """Whether other brokers can be heard from now on. What they said before was not."""
        self._hears = others
        self.look_everywhere()

    def look_everywhere(self) -> None:
        """There may be jobs in any queue: as at a poll."""
        self._next_poll_at = 0.0
        self._wake.set()

    # The leaser

    async def run(self) -> None:
        """Grants leases until it is stopped; outlives an outage of the database."""
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_poll_at):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._serve()
            except Unavailable as error:
                _log.warning("no leases can be granted error=%r", str(error))
                self._fail_polls(error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()
            except Exception:
                # Nobody else grants leases: whatever went wrong, it is tried again, and the log says so.
                _log.exception("no leases can be granted")
                self._fail_polls(Unavailable("leases cannot be granted now"))
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    def stop(self) -> None:
        """Ends `run` once the statement in flight is back: its leases are not lost."""
        self._stopping = True
        self._wake.set()

    async def close(self) -> None:
        """Returns when what was to be given back is given back; `run` must have ended."""
        if self._returning:
            await asyncio.gather(*self._returning, return_exceptions=True)
        await self._session.close()

    async def _poll_if_due(self) -> None:
        """Looks again, now and then, at what hungry streams wait for: however busy other queues are."""
        now = asyncio.get_running_loop().time()
        if now < self._next_poll_at:
            return
        self._next_poll_at = now + (POLL_SECONDS if self._hears else DEAF_POLL_SECONDS)
        wanted = self.wanted()
        rewinds = now >= self._next_rewind_at
        if rewinds:
            self._next_rewind_at = now + _REWIND_SECONDS
            self._settled = await floor_seconds_ago(self._session, _LATEST_COMMIT_MILLISECONDS / 1000)
            self._rewinds += 1
            self._forget_queues(now)
            if self._rewinds % _REWINDS_PER_FORGETTING == 0:
                self.holdings.forget()
        back = _LATEST_COMMIT_MILLISECONDS if rewinds else _USUAL_COMMIT_MILLISECONDS
        for queue in wanted:
            self._queues[queue].set_back(back)
            self._queues[queue].explored = False
        self._unexplored |= wanted
        if rewinds:
            self._rewind_some(wanted, now)

    def _rewind_some(self, wanted: set[str], now: float) -> None:
        """Lets each queue be read from its head in its turn, not all of them in one statement."""
        turn = 1 + int(len(wanted) * _REWIND_SECONDS / _FULL_REWIND_SECONDS)
        by_age = sorted((self._queues[queue] for queue in wanted), key=lambda lanes: lanes.rewound_at)
        for lanes in by_age[:turn]:
            if lanes.rewound_at <= now - _FULL_REWIND_SECONDS:
                lanes.rewound_at = now
                lanes.set_back(None)

    def _forget_queues(self, now: float) -> None:
        """Drops queues that nobody has subscribed to for a while, all of them where they are too many."""
        crowded = len(self._queues) > _KEEP_QUEUES
        for queue, lanes in list(self._queues.items()):
            if (
                lanes.streams == 0
                and not lanes.in_flight
                and (crowded or now - lanes.left_at > _KEEP_QUEUE_SECONDS)
            ):
                del self._queues[queue]

    def _fail_polls(self, error: Unavailable) -> None:
        """Ends streams that poll: their clients ask again. The others stay and are served once it is possible."""
        for stream in self._hungry.values():
            if stream.polls:
                stream.error = error
                stream.changed.set()

    async def _serve(self) -> None:
        """Grants until no stream with credits has a queue that may have jobs."""
        await self._poll_if_due()
        while self._hungry and not self._stopping:
            await self._explore()
            self._settle()
            plan = make_plan(self._hungry.values(), self._queues, self._leases_per_statement())
            if plan is not None:
                await self._grant(plan)
            elif not self._unexplored:
                break
            await self._poll_if_due()

    def _settle(self) -> None:
        """Tells streams that poll and whose queues have nothing now, however much there is in other queues."""
        for stream in self._hungry.values():
            if (
                stream.polls
                and not stream.settled
                and not stream.reserved
                and not any(self._queues[queue].promises for queue in stream.queues)
            ):
                stream.settled = True
                stream.changed.set()

    async def _explore(self) -> None:
        """Looks for jobs in queues that hungry streams wait for and that were not looked at lately; so no lease statement looks in vain."""
        names = list(islice(self._unexplored, _QUEUES_PER_LOOK))
        self._unexplored.difference_update(names)
        looked_at = unexplored = [self._queues[name] for name in names if name in self._queues]
        starts = [start for lanes in looked_at if not lanes.may_have_jobs for start in lanes.starts()]
        while unexplored:
            for lanes in unexplored:
                lanes.explored = True
            gaps = [gap for lanes in unexplored for gap in lanes.gaps()]
            try:
                found = await discover(self._session, gaps, starts)
            except BaseException:
                for lanes in looked_at:
                    lanes.explored = False
                self._unexplored.update(names)
                raise
            touched = set()
            for queue, priority in found:
                if (known := self._queues.get(queue)) is not None:
                    known.may_have_jobs = True
                    if priority not in known.floors:
                        known.floors[priority] = Floor()
                        touched.add(queue)
            # Below a priority that was just found there may be more.
            unexplored, starts = [self._queues[queue] for queue in touched], []
        for lanes in looked_at:
            lanes.found_empty(self._settled)

    async def _grant(self, plan: Plan) -> None:
        # Kept by name: whoever subscribes meanwhile may find its queue begun anew.
        planned = {queue: self._queues[queue] for queue in plan.quotas}
        for lanes in planned.values():
            lanes.may_have_jobs = False
            lanes.in_flight = True
        credit = _per_stream(plan.slots)
        for number, most in credit.items():
            self._streams[number].reserve(most)
        granted: list[Grant] = []
        try:
            granted = await grant(self._session, plan.lanes, plan.slots, plan.takers)
        except BaseException:
            for lanes in planned.values():
                lanes.may_have_jobs = True
                lanes.forget_set_backs()
            raise
        finally:
            for lanes in planned.values():
                lanes.in_flight = False
            self._deliver(granted, credit)
        counts: dict[str, int] = {}
        for (queue, priority), lane in groupby(granted, key=attrgetter("queue", "priority")):
            seqs = [lease.seq for lease in lane]
            planned[queue].floors[priority].leased(seqs[-1])
            counts[queue] = counts.get(queue, 0) + len(seqs)
        for lanes in planned.values():
            exhausted = counts.get(lanes.name, 0) < plan.quotas[lanes.name]
            for floor in lanes.floors.values():
                floor.landed(exhausted=exhausted, settled=self._settled)
            if not exhausted:
                lanes.may_have_jobs = True

    def _leases_per_statement(self) -> int:
        """As many as fit by what bodies weighed lately, at least one."""
        fitting = _BYTES_PER_STATEMENT / max(self._typical_bytes, 1.0)
        return max(1, min(LEASES_PER_STATEMENT, int(fitting)))

    def _deliver(self, granted: Sequence[Grant], credit: Mapping[int, int]) -> None:
        """Brings leases to their streams. `credit`: what was reserved, by stream; what is left of it is free again.

        Who was served goes to the end of the line; who has no credits left leaves it.
        """
        shares: dict[int, list[Grant]] = {}
        for lease in granted:
            shares.setdefault(lease.stream, []).append(lease)
        for number, most in credit.items():
            stream = self._streams.get(number)
            leases = shares.get(number, [])
            if stream is None:
                self._return([lease.delivery for lease in leases])
                continue
            stream.free(most - len(leases))
            if leases:
                stream.deliver(leases)
                self.holdings.add(stream, leases)
                self._hungry.pop(number, None)
            if stream.credits > 0:
                self._hungry.setdefault(number, stream)
        if granted:
            latest = sum(len(lease.input) for lease in granted) / len(granted)
            self._typical_bytes += _WEIGHT_OF_LATEST * (latest - self._typical_bytes)
            self._signals.leased_for(min(lease.lease_seconds for lease in granted))
            executions = {lease.execution_id for lease in granted if lease.execution_id is not None}
            self._signals.execution_changed(executions)

    def _return(self, leases: Sequence[Delivery]) -> None:
        if not leases:
            return
        self.holdings.drop(leases)
        task = asyncio.create_task(self._give_back_safely(leases))
        self._returning.add(task)
        task.add_done_callback(self._returning.discard)

    async def _give_back_safely(self, leases: Sequence[Delivery]) -> None:
        try:
            await self._give_back(leases)
        except RepriseError as error:
            # They are found again when they expire; that costs each an attempt.
            _log.warning(
                "undelivered leases could not be given back count=%d error=%r", len(leases), str(error)
            )


def _per_stream(slots: Iterable[int | None]) -> dict[int, int]:
    """How many of the slots each stream has."""
    return {number: count for number, count in Counter(slots).items() if number is not None}
