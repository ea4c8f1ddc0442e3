"""What this broker knows of queues: which may have jobs, where to read them, and when to look again.

Signs of this broker's own jobs come at once; what other brokers put in is found by looking. Must not know credits, nor lease anything.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Set
from itertools import islice

from broker.dispatcher.lanes import QueueLanes
from broker.job import Arrival
from broker.store.grant import discover, floor_seconds_ago
from broker.store.session import Session

# How often queues are looked at without any sign, for what other brokers put in: while those can be heard, and while they cannot.
POLL_SECONDS = 2.0
DEAF_POLL_SECONDS = 0.25
# Floors are set back by this much at every poll: longer than a usual transaction of another broker takes.
_USUAL_COMMIT_MILLISECONDS = 500
# And by this much, twice the statement timeout, every so often, no more often than that timeout; from the very beginning every so often.
_LATEST_COMMIT_MILLISECONDS = 10_000
_REWIND_SECONDS = 5.0
_FULL_REWIND_SECONDS = 60.0
# A queue that nobody subscribes to any more is remembered for so long: who polls finds its floors where they were.
_KEEP_QUEUE_SECONDS = 300.0
_KEEP_QUEUES = 20_000
# Queues of one look at what the database has: some 10 ms.
_QUEUES_PER_LOOK = 1_000
# Where there are more queues than that in the usual time, the next look comes later: every 2 s, 10 000 took 6 % of the broker's time and a
# tenth of the database's (measured 2026-11).
_QUEUES_PER_SECOND = 1_000
_LONGEST_POLL_SECONDS = 10.0


class Lookout:
    """The queues that streams of this broker subscribe to. Reads by the session of the leaser, never beside it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._queues: dict[str, QueueLanes] = {}
        self._giving: set[str] = set()
        self._unexplored: set[str] = set()  # queues that streams with credits wait for
        self._hears = False
        self._next_rewind_at = 0.0  # on the loop's clock, as is the next one
        self.next_look_at = 0.0
        self.settled = 0  # the id of an instant before which nothing commits any more

    @property
    def queues(self) -> Mapping[str, QueueLanes]:
        """What is known of each queue, by its name."""
        return self._queues

    @property
    def giving(self) -> Set[str]:
        """The queues at which the next lease statement is to look for jobs."""
        return self._giving

    def may_find(self, names: Iterable[str]) -> bool:
        """Whether a lease statement might find a job now in these queues, which streams with credits wait for."""
        return not (self._giving.isdisjoint(names) and self._unexplored.isdisjoint(names))

    @property
    def has_unexplored(self) -> bool:
        """Whether there are queues that are to be looked at before the next lease statement."""
        return bool(self._unexplored)

    # Who cares for which queue

    def subscribe(self, names: Iterable[str]) -> None:
        """One more stream takes jobs of these queues."""
        for name in names:
            if name not in self._queues:
                self._queues[name] = QueueLanes(name, giving=self._giving)
            self._queues[name].streams += 1

    def unsubscribe(self, names: Iterable[str]) -> None:
        """One stream less does."""
        now = asyncio.get_running_loop().time()
        for name in names:
            self._queues[name].streams -= 1
            self._queues[name].left_at = now

    def want(self, names: Iterable[str]) -> None:
        """A stream of these queues has credits: those that were not looked at lately are looked at next."""
        self._unexplored.update(name for name in names if not self._queues[name].explored)

    # Signs

    def arrived(self, arrivals: Iterable[Arrival]) -> bool:
        """Jobs have become available; whether in a queue that matters here."""
        known = [(lanes, arrival) for arrival in arrivals if (lanes := self._queues.get(arrival.queue))]
        for lanes, arrival in known:
            lanes.arrive(arrival)
        return bool(known)

    def look_again(self, names: Iterable[str]) -> None:
        """What the database has in these queues from now on is looked at afresh, whatever was put in before by whom."""
        for name in names:
            self._look_again(name, _USUAL_COMMIT_MILLISECONDS)

    def hears(self, *, others: bool) -> None:
        """Whether other brokers can be heard from now on. What they said before was not."""
        self._hears = others
        self.look_everywhere()

    def look_everywhere(self) -> None:
        """There may be jobs in any queue: as when it is time to look."""
        self.next_look_at = 0.0

    # Looking

    async def look_if_due(self, wanted: Callable[[], set[str]]) -> None:
        """Now and then has what hungry streams wait for looked at again, however busy other queues are. Raises Unavailable."""
        now = asyncio.get_running_loop().time()
        if now < self.next_look_at:
            return
        rewinds = now >= self._next_rewind_at
        if rewinds:
            self.settled = await floor_seconds_ago(self._session, _LATEST_COMMIT_MILLISECONDS / 1000)
            self._next_rewind_at = now + _REWIND_SECONDS
            self._forget_queues(now)
        names = wanted()
        self.next_look_at = now + self._poll_seconds(len(names))
        for name in names:
            self._look_again(name, _LATEST_COMMIT_MILLISECONDS if rewinds else _USUAL_COMMIT_MILLISECONDS)
        if rewinds:
            for name in names:
                self._queues[name].reach_back()
            self._rewind_some(names, now)

    def _poll_seconds(self, queues: int) -> float:
        """From one look without any sign to the next."""
        usual = POLL_SECONDS if self._hears else DEAF_POLL_SECONDS
        return max(usual, min(queues / _QUEUES_PER_SECOND, _LONGEST_POLL_SECONDS))

    async def explore(self) -> None:
        """Looks for jobs in queues that hungry streams wait for and that were not looked at lately: no lease statement looks in vain.

        Raises Unavailable.
        """
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
            # Below a priority that was just found there may be more.
            unexplored, starts = self._take_in(found), []
        for lanes in looked_at:
            lanes.found_empty(self.settled)

    def _take_in(self, found: Iterable[tuple[str, int]]) -> list[QueueLanes]:
        """Notes that there are jobs; gives the queues of which a priority was not known."""
        touched = {}
        for queue, priority in found:
            if (lanes := self._queues.get(queue)) is not None and lanes.find(priority):
                touched[queue] = lanes
        return list(touched.values())

    def _look_again(self, name: str, back_milliseconds: int) -> None:
        lanes = self._queues[name]
        lanes.set_back(back_milliseconds)
        lanes.explored = False
        self._unexplored.add(name)

    def _rewind_some(self, names: Iterable[str], now: float) -> None:
        """Lets each queue be read from its head in its turn, not all of them in one statement."""
        by_age = sorted((self._queues[name] for name in names), key=lambda lanes: lanes.rewound_at)
        between = max(_REWIND_SECONDS, self._poll_seconds(len(by_age)))
        turn = 1 + int(len(by_age) * between / _FULL_REWIND_SECONDS)
        for lanes in by_age[:turn]:
            if lanes.rewound_at <= now - _FULL_REWIND_SECONDS:
                lanes.rewound_at = now
                lanes.set_back(None)

    def _forget_queues(self, now: float) -> None:
        """Drops queues that nobody has subscribed to for a while, all of them where they are too many."""
        crowded = len(self._queues) > _KEEP_QUEUES
        for name, lanes in list(self._queues.items()):
            if (
                lanes.streams == 0
                and not lanes.in_flight
                and (crowded or now - lanes.left_at > _KEEP_QUEUE_SECONDS)
            ):
                del self._queues[name]
                self._giving.discard(name)
