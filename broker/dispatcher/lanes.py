"""Where in the ready lane each queue was last leased, so that no lease statement starts at the head of a churned index.

A floor is the seq behind which everything was leased. Order of ids is not order of commits: what commits behind a floor is found
because this broker's own arrivals lower it exactly, and because floors are set back regularly for what other brokers put in.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from broker.job import Arrival

# A seq is milliseconds shifted left by 22 bits.
_MILLISECOND = 1 << 22
LOWEST_PRIORITY = -100
HIGHEST_PRIORITY = 100


@dataclass(slots=True)
class Floor:
    """One (queue, priority): what was leased up to where, and what arrived while a statement was in flight."""

    seq: int = 0
    arrived_in_flight: int | None = None

    def arrive(self, seq: int, *, in_flight: bool) -> None:
        """A job has come in at `seq`."""
        self.seq = min(self.seq, seq - 1)
        if in_flight:
            self.arrived_in_flight = (
                seq if self.arrived_in_flight is None else min(self.arrived_in_flight, seq)
            )

    def leased(self, seq: int) -> None:
        """Everything up to `seq` that the statement could see was leased."""
        self.seq = max(self.seq, seq)

    def landed(self) -> None:
        """The statement is back: what arrived meanwhile may lie behind what it leased."""
        if self.arrived_in_flight is not None:
            self.seq = min(self.seq, self.arrived_in_flight - 1)
            self.arrived_in_flight = None


@dataclass(slots=True)
class QueueLanes:
    """The priorities of one queue that are known to have had jobs, and whether it may have some now."""

    name: str
    floors: dict[int, Floor] = field(default_factory=dict)
    may_have_jobs: bool = True
    explored: bool = False  # priorities were looked for in the database
    in_flight: bool = False
    streams: int = 0  # that subscribe to it

    @property
    def promises(self) -> bool:
        """Whether a lease statement might find a job here now."""
        return not self.explored or (self.may_have_jobs and bool(self.floors))

    def arrive(self, arrival: Arrival) -> None:
        """A job has become available."""
        floor = self.floors.get(arrival.priority)
        if floor is None:
            # Never leased here: older jobs may lie in that lane, so it is read from its head once.
            floor = self.floors[arrival.priority] = Floor()
        floor.arrive(arrival.seq, in_flight=self.in_flight)
        self.may_have_jobs = True

    def set_back(self, milliseconds: int | None) -> None:
        """Lowers every floor by so much time, None: to the very beginning; and says that there may be jobs."""
        for floor in self.floors.values():
            seq = 0 if milliseconds is None else max(0, floor.seq - milliseconds * _MILLISECOND)
            floor.arrive(seq + 1, in_flight=self.in_flight)
        self.may_have_jobs = True

    def gaps(self) -> list[tuple[str, int, int]]:
        """The ranges of priorities, both ends excluded, in which no lane is known yet."""
        bounds = [LOWEST_PRIORITY - 1, *sorted(self.floors), HIGHEST_PRIORITY + 1]
        return [(self.name, low, high) for low, high in pairwise(bounds) if high - low > 1]
