"""Waits: from the call of Enqueue to the start on brokers that do nothing else, and how late retries and scheduled jobs start."""

from collections.abc import Iterator
from dataclasses import replace

from bench.go_client import build_client
from bench.measurement import Measurement
from bench.scenario import Stage
from bench.testbed import Database, run_load, running_broker
from bench.workload import Figure, Load, Site, Task

_WAITS = "bench.loads.waits_load"
_GO = "bench.loads.calls_load"
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
    """Every figure through gRPC, and what the two statements take that lie between enqueue and lease where a job has to wait; at length
    also between two brokers. By a client in Go, which takes less of the wait for itself, where there is one; the start in Python too.
    """
    program = str(build_client(stage.tools) or "")
    with stage.testbed() as site:
        for number in range(stage.rounds):
            if program:
                yield from run_load(_GO, _task(site, Figure.ENQUEUE_TO_START, f"go-{number}", program))
            for module, figure in _FULL if stage.full else _QUICK:
                told = "" if figure is Figure.ENQUEUE_TO_START else program
                yield from run_load(
                    module, _task(site, figure, f"{module.rpartition('.')[2]}-{number}", told)
                )
        if stage.full:
            yield from _between_two_brokers(stage, site, program)


def _between_two_brokers(stage: Stage, site: Site, program: str) -> Iterator[Measurement]:
    """Enqueued at the one, leased at the other."""
    database = Database(site.database_url, site.database_pid)
    with running_broker(database, stage.folder / "broker-2.log") as other:
        both = replace(site, lease_address=other.address)
        for number in range(stage.rounds):
            if program:
                yield from run_load(_GO, _task(both, Figure.ENQUEUE_TO_START, f"go-two-{number}", program))
            yield from run_load(_WAITS, _task(both, Figure.ENQUEUE_TO_START, f"two-{number}"))
            yield from run_load(_WAITS, _task(both, Figure.SCHEDULED_LATENESS, f"two-{number}", program))


def _task(site: Site, figure: Figure, queue: str, program: str = "") -> Task:
    return Task(site, Load(_BUSY_JOBS if figure in _BUSY else _SINGLE_JOBS), queue, (figure,), program)
