"""Where in the ready lane each queue was last leased, so that no lease statement starts at the head of a churned index.

A floor is the seq behind which everything was leased. Order of ids is not order of commits: what commits behind a floor is found
because this broker's own arrivals lower it exactly, and because now and then one statement reads from further back, for what other
brokers put in. A floor itself never sinks by that: dead entries behind it are not stepped over again and again.

What another broker had locked when a statement came by is passed over, and lies behind the floor if that broker's statement fails and
is not repeated, as when it is killed. No statement takes longer than the time between two rewinds, so what was passed over is read again
at the first or second rewind (`reach_back`). Left to a full rewind is what is passed over again then,
and what a transaction of executions held for longer before it was undone.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from broker.ids import IDS_PER_MILLISECOND
from broker.job import Arrival

LOWEST_PRIORITY = -100
HIGHEST_PRIORITY = 100


@dataclass(slots=True)
class Floor:
    """One (queue, priority): what was leased up to where, and what arrived while a statement was in flight."""

    seq: int = 0
    set_back_to: int | None = None  # where the next statement starts instead
    set_back_in_flight: int | None = None
    arrived_in_flight: int | None = None
    highest_passed: int | None = None  # by the statement that is in flight
    earlier: tuple[int | None, int | None] = (None, None)  # `seq` at the last rewind but one, and at the last

    @property
    def start(self) -> int:
        """Behind which seq the next statement reads."""
        return self.seq if self.set_back_to is None else min(self.seq, self.set_back_to)

    def arrive(self, seq: int, *, in_flight: bool) -> None:
        """A job has come in at `seq`."""
        self.seq = min(self.seq, seq - 1)
        if in_flight:
            self.arrived_in_flight = (
                seq if self.arrived_in_flight is None else min(self.arrived_in_flight, seq)
            )

    def set_back(self, seq: int, *, in_flight: bool) -> None:
        """Lets the next statement that starts from now on read behind `seq`."""
        if in_flight:
            self.set_back_in_flight = (
                seq if self.set_back_in_flight is None else min(self.set_back_in_flight, seq)
            )
        else:
            self.set_back_to = seq if self.set_back_to is None else min(self.set_back_to, seq)

    def passed(self, seq: int) -> None:
        """Everything up to `seq` that the statement could see was leased, or is being leased by another broker."""
        self.highest_passed = seq if self.highest_passed is None else max(self.highest_passed, seq)

    def landed(self, *, exhausted: bool, settled: int) -> None:
        """The statement is back; `exhausted`: it took all that there was, so that nothing is left behind `settled` either.

        What arrived meanwhile may lie behind what it leased.
        """
        if exhausted:
            self.seq = max(self.seq, self.highest_passed or 0, settled)
            self.set_back_to = None
        elif self.highest_passed is not None:
            # It stopped at its quota: from what was set back there may be more between here and the floor.
            self.set_back_to = self.highest_passed if self.highest_passed < self.seq else None
            self.seq = max(self.seq, self.highest_passed)
        self.highest_passed = None
        if self.set_back_in_flight is not None:
            self.set_back(self.set_back_in_flight, in_flight=False)
            self.set_back_in_flight = None
        if self.arrived_in_flight is not None:
            self.seq = min(self.seq, self.arrived_in_flight - 1)
            self.arrived_in_flight = None


@dataclass(slots=True)
class QueueLanes:
    """The priorities of one queue that are known to have had jobs, and whether it may have some now; how many, where that can be told."""

    name: str
    floors: dict[int, Floor] = field(default_factory=dict)
    may_have_jobs: bool = True
    explored: bool = False  # priorities were looked for in the database
    in_flight: bool = False
    # Jobs that wait, as far as this broker knows, beside those that waited when the statement in flight began; None: it cannot tell.
    waiting: int | None = None
    claimed: int | None = None  # those that waited then
    covered: bool = False  # that statement takes all of them
    filled_a_share: bool = False  # alone, the last time that could be told: more may lie here than is taken
    streams: int = 0  # that subscribe to it
    left_at: float = 0.0  # on the loop's clock: when the last of them did
    rewound_at: float = 0.0  # on the loop's clock: when it was last read from its head
    giving: set[str] = field(
        default_factory=set, repr=False, compare=False
    )  # of all queues, those that may give

    @property
    def promises(self) -> bool:
        """Whether a lease statement might find a job here now."""
        return not self.explored or self.may_give

    @property
    def may_give(self) -> bool:
        """Whether the next lease statement is to look for jobs here."""
        return self.may_have_jobs and bool(self.floors)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here, as far as this broker has looked, but for what the statement in flight takes."""
        return not self.promises and (self.covered or not self.in_flight)

    def arrive(self, arrival: Arrival) -> None:
        """Jobs have become available."""
        if not self.in_flight and not self.promises:
            self.waiting = 0
        self.waiting = None if self.waiting is None or arrival.jobs is None else self.waiting + arrival.jobs
        floor = self.floors.get(arrival.priority)
        if floor is None:
            # Never leased here: older jobs may lie in that lane, so it is read from its head once.
            floor = self.floors[arrival.priority] = Floor()
        floor.arrive(arrival.seq, in_flight=self.in_flight)
        self._give()

    def find(self, priority: int) -> bool:
        """The database has jobs of this priority; whether that was not known."""
        is_new = priority not in self.floors
        if is_new:
            self.floors[priority] = Floor()
        self.waiting = None
        self._give()
        return is_new

    def depart(self, *, covered: bool) -> None:
        """A lease statement that looks here begins; `covered`: it takes all that are known to wait."""
        self.may_have_jobs = False
        self.giving.discard(self.name)
        self.in_flight = True
        self.covered = covered
        self.claimed, self.waiting = self.waiting, 0

    def land(self, settled: int, *, taken: int | None, exhausted: bool, alone: bool = False) -> None:
        """The statement is back; `taken`: how many jobs, None where others of those it saw are being taken by another broker.

        `exhausted`: it saw all that there was; `alone`: no other broker puts jobs in.
        """
        self.in_flight = self.covered = False
        for floor in self.floors.values():
            floor.landed(exhausted=exhausted, settled=settled)
        left: int | None = 0
        if not exhausted:
            # As many as were known to wait may be others, of which another broker has not told yet.
            claimed = self.claimed
            left = (
                None if taken is None or claimed is None or claimed < taken + (not alone) else claimed - taken
            )
        self.waiting = None if self.waiting is None or left is None else self.waiting + left
        if left != 0:
            self._give()

    def crash(self) -> None:
        """The statement has failed: whatever it was to take still waits."""
        self.in_flight = self.covered = False
        self._give()
        self.waiting = None
        # If it read from further back, the next one reads from the floors again.
        for floor in self.floors.values():
            floor.set_back_to = None

    def _give(self) -> None:
        """From now on there may be jobs here."""
        self.may_have_jobs = True
        self.giving.add(self.name)

    def set_back(self, milliseconds: int | None) -> None:
        """Lets the next statement read from so much time before each floor, None: from the very beginning."""
        self.waiting = None
        for floor in self.floors.values():
            start = 0 if milliseconds is None else max(0, floor.seq - milliseconds * IDS_PER_MILLISECOND)
            floor.set_back(start, in_flight=self.in_flight)

    def reach_back(self) -> None:
        """Lets the next statement read from where the floors were at the call before the last one."""
        for floor in self.floors.values():
            before_last, last = floor.earlier
            if before_last is not None:
                floor.set_back(before_last, in_flight=self.in_flight)
            floor.earlier = last, floor.seq

    def found_empty(self, settled: int) -> None:
        """The database had nothing where the next statement would read; unless there is news since then, none needs to read there."""
        if self.explored and not self.may_have_jobs:
            for floor in self.floors.values():
                floor.landed(exhausted=True, settled=settled)

    def starts(self) -> list[tuple[str, int, int]]:
        """The known priorities, and behind which seq the next statement reads each."""
        return [(self.name, priority, floor.start) for priority, floor in self.floors.items()]

    def gaps(self) -> list[tuple[str, int, int]]:
        """The ranges of priorities, both ends excluded, in which no lane is known yet."""
        bounds = [LOWEST_PRIORITY - 1, *sorted(self.floors), HIGHEST_PRIORITY + 1]
        return [(self.name, low, high) for low, high in pairwise(bounds) if high - low > 1]
