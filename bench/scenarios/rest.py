"""Waits: from the call of Enqueue to the start on brokers that do nothing else, and how late retries and scheduled jobs start."""

from collections.abc import Iterator
from dataclasses import replace

from bench.measurement import Measurement
from bench.scenario import Stage
from bench.testbed import Database, run_load, running_broker
from bench.workload import Figure, Load, Site, Task

_WAITS = "bench.loads.waits_load"
_RAW = "bench.loads.raw_load"
_SINGLE_JOBS = 300
_BUSY_JOBS = 10_000
_QUICK = ((_WAITS, Figure.ENQUEUE_TO_START), (_RAW, Figure.ENQUEUE_TO_START), (_WAITS, Figure.RETRY_LATENESS))
_FULL = (
    *_QUICK,
    (_WAITS, Figure.SCHEDULED_LATENESS),
    (_WAITS, Figure.RETRY_LATENESS_BUSY),
    (_WAITS, Figure.SCHEDULED_LATENESS_BUSY),
)
_BUSY = (Figure.RETRY_LATENESS_BUSY, Figure.SCHEDULED_LATENESS_BUSY)


def measure(stage: Stage) -> Iterator[Measurement]:
    """Every figure through gRPC, and what the two statements between enqueue and lease take; at length also between two brokers."""
    with stage.testbed() as site:
        for number in range(stage.rounds):
            for module, figure in _FULL if stage.full else _QUICK:
                yield from run_load(module, _task(site, figure, f"{module.rpartition('.')[2]}-{number}"))
        if stage.full:
            yield from _between_two_brokers(stage, site)


def _between_two_brokers(stage: Stage, site: Site) -> Iterator[Measurement]:
    """Enqueued at the one, leased at the other."""
    database = Database(site.database_url, site.database_pid)
    with running_broker(database, stage.folder / "broker-2.log") as other:
        both = replace(site, lease_address=other.address)
        for number in range(stage.rounds):
            for figure in (Figure.ENQUEUE_TO_START, Figure.SCHEDULED_LATENESS):
                yield from run_load(_WAITS, _task(both, figure, f"two-{number}"))


def _task(site: Site, figure: Figure, queue: str) -> Task:
    return Task(site, Load(_BUSY_JOBS if figure in _BUSY else _SINGLE_JOBS), queue, (figure,))
