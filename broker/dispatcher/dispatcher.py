"""The one leaser of a broker: shares its lease statements between all streams that have credits."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count, groupby
from math import inf
from operator import attrgetter
from time import process_time

from broker.dispatcher.holdings import FORGOTTEN_AFTER_SECONDS, Holdings
from broker.dispatcher.lanes import QueueLanes
from broker.dispatcher.lookout import Lookout
from broker.dispatcher.match import make_offer, match
from broker.dispatcher.plan import LEASES_PER_STATEMENT, Plan, make_plan, pause_after, taker_of
from broker.dispatcher.stream import LeaseStream
from broker.errors import LimitExceeded, Unavailable
from broker.job import Arrival, Delivery, Grant, NewJob, bytes_of, deliveries_of
from broker.lifecycle.signals import Signals
from broker.lifecycle.takers import Reservation
from broker.store.grant import Granted, grant
from broker.store.promote import Offer
from broker.store.session import Session

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25
_STREAMS = 20_000
# How often leases that must have ended unheard are dropped from memory.
_FORGET_SECONDS = 60.0
# The leases of one statement together, by what leases weighed lately.
_BYTES_PER_STATEMENT = 8 * 1024 * 1024
_WEIGHT_OF_LATEST = 0.5
# Before any was seen: half of what one may weigh. So the first statement takes 16, and six later ones reach the full number.
_BYTES_AT_FIRST = 512 * 1024.0

GiveBack = Callable[[Sequence[Delivery]], Awaitable[None]]


class Dispatcher:
    """Streams subscribe and give credits; `run` grants leases to them as jobs become available.

    `alone` says whether no other broker puts jobs in; whoever wires the broker sets it.
    """

    def __init__(self, database_url: str, signals: Signals, give_back: GiveBack) -> None:
        self._session = Session(database_url)
        self._signals = signals
        self._give_back = give_back
        self._streams: dict[int, LeaseStream] = {}
        self._hungry: dict[int, LeaseStream] = {}  # with credits; served in this order, then moved to the end
        self._polling: dict[int, LeaseStream] = {}
        self._lookout = Lookout(self._session)
        self.holdings = Holdings()
        self.alone: Callable[[], bool] = lambda: False
        self._wake = asyncio.Event()
        self._next_number = 1
        self._next_forgetting_at = 0.0  # on the loop's clock, as is the next one
        self._paused_until = 0.0
        self._typical_bytes = _BYTES_AT_FIRST  # of one lease
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
        self._lookout.subscribe(stream.queues)
        return stream

    def add_credits(self, stream: LeaseStream, credit: int) -> None:
        """Lets the stream take `credit` more leases."""
        stream.credits += credit
        if stream.credits > 0:
            if stream.number not in self._hungry:
                self._hungry[stream.number] = stream
                self._lookout.want(stream.queues)
            if self._lookout.may_find(stream.queues):
                self._wake.set()

    def close_side(self, stream: LeaseStream) -> None:
        """The client has closed its side: what was and will be delivered counts as received, and the stream ends by itself.

        What the database has at this moment is looked at afresh, so that a poll sees whatever was put in before it.
        """
        stream.polls = True
        self._polling[stream.number] = stream
        self.receive(stream, list(stream.unreceived))
        self._lookout.look_again(stream.queues)
        self._wake.set()

    def taken(self, stream: LeaseStream) -> None:
        """What waited to be sent was taken to be sent: the stream may have more."""
        if stream.is_full:
            self._wake.set()
        stream.unsent_bytes = bytes_of(stream.outbox)

    def receive(self, stream: LeaseStream, lease_ids: Iterable[int]) -> None:
        """Leases of this stream have arrived at its client: from here on they are the worker's."""
        for lease_id in lease_ids:
            stream.unreceived.pop(lease_id, None)

    def unsubscribe(self, stream: LeaseStream) -> None:
        """The stream is over. What it has not received goes back; what it has received stays the worker's."""
        stream.over = True
        self._streams.pop(stream.number, None)
        self._hungry.pop(stream.number, None)
        self._polling.pop(stream.number, None)
        self._lookout.unsubscribe(stream.queues)
        if stream.unreceived:
            self._return(list(stream.unreceived.values()))

    @property
    def workers(self) -> dict[str, int]:
        """How many streams subscribe to each queue."""
        return {queue: lanes.streams for queue, lanes in self._lookout.queues.items() if lanes.streams}

    def wanted(self) -> set[str]:
        """The queues that streams with credits wait for."""
        return {queue for stream in self._hungry.values() for queue in stream.queues}

    # Jobs that need not wait

    def reserve(self, jobs: Sequence[NewJob]) -> Reservation:
        """The streams that take some of `jobs` at once; their credits are kept until `take`."""
        if not self._hungry or self._stopping:
            return Reservation()
        slots = match(jobs, self._hungry.values(), self._lookout.queues)
        credit = self._keep(slots)
        return Reservation(slots, {number: taker_of(self._streams[number]) for number in credit})

    def offer(self, most: int) -> Offer:
        """Slots for jobs that become due, some `most`; their credits are kept until `take`."""
        if not self._hungry or self._stopping:
            return Offer()
        limit = self._leases_per_statement()
        offer = make_offer(self._hungry.values(), self._lookout.queues, min(most, limit), limit)
        self._keep(offer.slots)
        return offer

    def take(self, slots: Sequence[int | None], granted: Sequence[Grant]) -> None:
        """Delivers what was leased to the streams of `slots`, and frees the credits that were not used."""
        credit = _per_stream(slots)
        self._deliver(granted, credit)
        streams = [stream for number in credit if (stream := self._streams.get(number)) is not None]
        # The leaser took those credits for used. A stream that polls may now be told that there is nothing more.
        free_at = {stream.queues for stream in streams if stream.credits > 0}
        if any(stream.polls for stream in streams) or any(map(self._lookout.may_find, free_at)):
            self._wake.set()

    def _keep(self, slots: Iterable[int | None]) -> dict[int, int]:
        """Keeps a credit for each slot, until `_deliver`: how many, by stream."""
        credit = _per_stream(slots)
        for number, most in credit.items():
            self._streams[number].reserve(most)
        return credit

    def promises(self, queue: str) -> bool:
        """Whether there may be jobs in the queue, as far as this broker has looked."""
        lanes = self._lookout.queues.get(queue)
        return lanes is None or lanes.promises

    # Signals

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        """Jobs have become available."""
        if self._lookout.arrived(arrivals):
            self._wake.set()

    def hears(self, *, others: bool) -> None:
        """Whether other brokers can be heard from now on. What they said before was not."""
        self._lookout.hears(others=others)
        self._wake.set()

    def look_everywhere(self) -> None:
        """There may be jobs in any queue."""
        self._lookout.look_everywhere()
        self._wake.set()

    # The leaser

    async def run(self) -> None:
        """Grants leases until it is stopped; outlives an outage of the database."""
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._lookout.next_look_at):
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
                # Nobody else looks for jobs that wait: whatever went wrong, it is tried again, and the log says so.
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

    def _fail_polls(self, error: Unavailable) -> None:
        """Ends streams that poll: their clients ask again. The others stay and are served once it is possible."""
        for number, stream in self._polling.items():
            if number in self._hungry:
                stream.error = error
                stream.changed.set()

    async def _serve(self) -> None:
        """Grants until no stream with credits has a queue that may have jobs."""
        self._forget_if_due()
        await self._lookout.look_if_due(self.wanted)
        while self._hungry and not self._stopping:
            await self._lookout.explore()
            self._settle()
            if await self._pause():
                continue  # there may be queues to be looked at first
            lookout, most, alone = self._lookout, self._leases_per_statement(), self.alone()
            plan = make_plan(self._hungry.values(), lookout.queues, lookout.giving, most, alone=alone)
            if plan is not None:
                await self._grant(plan, most, alone=alone)
            elif not self._lookout.has_unexplored:
                break
            await self._lookout.look_if_due(self.wanted)

    async def _pause(self) -> bool:
        """Lets credits and jobs come in, where the last statement was a small one and has only just ended; whether that was so."""
        seconds = self._paused_until - asyncio.get_running_loop().time()
        if seconds <= 0:
            return False
        await asyncio.sleep(seconds)
        return True

    def _forget_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_forgetting_at:
            self._next_forgetting_at = now + _FORGET_SECONDS
            self.holdings.forget()

    def _settle(self) -> None:
        """Tells streams that poll and whose queues have nothing now, however much there is in other queues."""
        for number, stream in self._polling.items():
            if (
                number in self._hungry
                and not stream.settled
                and not stream.reserved
                and not any(self._lookout.queues[queue].promises for queue in stream.queues)
            ):
                stream.settled = True
                stream.changed.set()

    async def _grant(self, plan: Plan, most: int, *, alone: bool) -> None:
        # Kept by name: whoever subscribes meanwhile may find its queue begun anew.
        planned = {queue: self._lookout.queues[queue] for share in plan.shares for queue in share.queues}
        for share in plan.shares:
            for queue in share.queues:
                planned[queue].depart(covered=share.covers)
        credit = self._keep(plan.slots)
        loop = asyncio.get_running_loop()
        began_at, cpu_before = loop.time(), process_time()
        try:
            granted = await grant(self._session, plan.lanes, plan.slots, plan.takers)
        except BaseException:
            for lanes in planned.values():
                lanes.crash()
            self._deliver([], credit)
            # It may have been too large to end in time: the next one takes half.
            self._typical_bytes = max(self._typical_bytes, 2 * _BYTES_PER_STATEMENT / len(plan.slots))
            raise
        ended_at = loop.time()
        self._paused_until = ended_at + pause_after(
            slots=len(plan.slots),
            most=most,
            took_seconds=ended_at - began_at,
            busy_seconds=process_time() - cpu_before,
        )
        self._land(plan, planned, granted, alone=alone)
        self._deliver(granted.leases, credit)

    def _land(self, plan: Plan, planned: Mapping[str, QueueLanes], granted: Granted, *, alone: bool) -> None:
        """The statement of a plan is back: notes what is left in its queues."""
        counts: Counter[str] = Counter()
        for (queue, priority), lane in groupby(granted.leases, key=attrgetter("queue", "priority")):
            seqs = [lease.seq for lease in lane]
            planned[queue].floors[priority].passed(seqs[-1])
            counts[queue] += len(seqs)
        chosen = counts
        if granted.chosen:
            # What another broker took, or is about to, is passed over: chosen again at once, it would be taken in vain again.
            chosen = Counter()
            for queue, priority, seq, jobs in granted.chosen:
                planned[queue].floors[priority].passed(seq)
                chosen[queue] += jobs
        for share in plan.shares:
            missing = share.quota
            for queue in share.queues:
                missing -= chosen[queue]
                exhausted, filled = missing > 0, chosen[queue] == share.quota > 1
                lanes = planned[queue]
                taken = counts[queue] if counts[queue] == chosen[queue] else None
                lanes.land(self._lookout.settled, taken=taken, exhausted=exhausted, alone=alone)
                if exhausted or filled:
                    lanes.filled_a_share = filled and lanes.may_have_jobs

    def _leases_per_statement(self) -> int:
        """As many as fit by what leases weighed lately, at least one."""
        return max(1, min(LEASES_PER_STATEMENT, int(_BYTES_PER_STATEMENT / self._typical_bytes)))

    def _deliver(self, granted: Sequence[Grant], credit: Mapping[int, int]) -> None:
        """Brings leases to their streams. `credit`: what was reserved, by stream; what is left of it is free again.

        Who was served goes to the end of the line; who has no credits left leaves it.
        """
        shares: dict[int, list[Grant]] = {}
        for lease in granted:
            shares.setdefault(lease.stream, []).append(lease)
        total = 0
        for number, most in credit.items():
            stream = self._streams.get(number)
            leases = shares.get(number, [])
            size = bytes_of(leases)
            total += size
            if stream is None:
                self._return(deliveries_of(leases))
                continue
            stream.free(most - len(leases))
            if leases:
                stream.deliver(leases, size)
                self.holdings.add(stream, leases)
                self._hungry.pop(number, None)
            if stream.credits > 0:
                self._hungry.setdefault(number, stream)
        if granted:
            self._typical_bytes += _WEIGHT_OF_LATEST * (total / len(granted) - self._typical_bytes)
            self._signals.leased_for(_shortest(granted, (self._streams.get(number) for number in shares)))
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
        """Repeats what fails, also once the broker stops: the connection may have been dead for hours. Nothing goes back twice."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + FORGOTTEN_AFTER_SECONDS
        for attempt in count(1):
            is_last = attempt > 1 and (self._stopping or loop.time() >= give_up_at)
            try:
                await self._give_back(leases)
            except (Unavailable, LimitExceeded) as error:
                if is_last:
                    # They are found again when they expire; that costs each an attempt.
                    _log.warning(
                        "undelivered leases could not be given back count=%d error=%r",
                        len(leases),
                        str(error),
                    )
                    return
                if attempt == 1:
                    _log.info("undelivered leases go back later count=%d error=%r", len(leases), str(error))
                await asyncio.sleep(error.retry_after.total_seconds())
            else:
                return


def _shortest(granted: Iterable[Grant], streams: Iterable[LeaseStream | None]) -> float:
    """Seconds until the first of these leases may expire; those of a stream that is over are given back."""
    timeouts = {lease.attempt_timeout_seconds for lease in granted}
    return min(
        chain(
            (seconds for seconds in timeouts if seconds is not None),
            (stream.lease_seconds for stream in streams if stream is not None),
        ),
        default=inf,
    )


def _per_stream(slots: Iterable[int | None]) -> dict[int, int]:
    """How many of the slots each stream has."""
    return {number: count for number, count in Counter(slots).items() if number is not None}
