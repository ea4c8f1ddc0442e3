"""Who may take a job in the very statement that puts it in or finds it due; verbs and timers know no more of streams than this."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from broker.job import Grant, NewJob, Taker
from broker.store.promote import Offer


class Reservation(NamedTuple):
    """Credits that are kept for the jobs of one statement, until it is known what became of them."""

    slots: Sequence[int | None] = ()
    """For each job the stream that takes it, None where it waits; empty where all wait."""
    takers: Mapping[int, Taker] = {}
    """The streams of `slots` by their number."""


class Takers(Protocol):
    """Streams that wait for jobs. Every reservation and every offer ends in one `take`, also when its statement has failed."""

    def reserve(self, jobs: Sequence[NewJob]) -> Reservation:
        """Which streams take which of `jobs` at once."""
        ...

    def offer(self, most: int) -> Offer:
        """Slots for jobs that become due, whichever those are, some `most`. Their credits are kept until `take`."""
        ...

    def take(self, slots: Sequence[int | None], granted: Sequence[Grant]) -> None:
        """Brings what was leased to the streams; those credits of `slots` that were not used are free again."""
        ...


class Nobody:
    """No stream waits: every job does."""

    def reserve(self, jobs: Sequence[NewJob]) -> Reservation:
        """No slots."""
        return Reservation()

    def offer(self, most: int) -> Offer:
        """No slots."""
        return Offer()

    def take(self, slots: Sequence[int | None], granted: Sequence[Grant]) -> None:
        """Nothing was taken."""
