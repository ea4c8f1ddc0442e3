"""What the verbs tell those who wait, inside one broker. Hints only: everything is found again by sweeping tables."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from broker.job import Arrival


def _ignore(*_: object) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Signals:
    """Where each signal goes; whoever wires the broker sets them."""

    arrived: Callable[[Iterable[Arrival]], None] = _ignore
    """Jobs have become available."""

    due_in: Callable[[float], None] = _ignore
    """A job will be due in so many seconds."""

    leased_for: Callable[[float], None] = _ignore
    """A lease was granted or prolonged that expires in so many seconds, unless prolonged again."""

    confirmed: Callable[[Iterable[int]], None] = _ignore
    """Leases (by id) were prolonged by their workers."""

    ended: Callable[[Iterable[int]], None] = _ignore
    """Leases (by id) have ended by a verb of their worker."""

    lost: Callable[[Iterable[int]], None] = _ignore
    """Leases (by id) were taken from their worker."""

    cancelled: Callable[[Iterable[int]], None] = _ignore
    """The jobs of leases (by id) were cancelled."""

    execution_changed: Callable[[Iterable[int]], None] = _ignore
    """Executions (by id) have new events."""
