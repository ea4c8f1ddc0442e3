"""Waits: from the call of Enqueue to the start on brokers that do nothing else, and how late retries and scheduled jobs start."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.measurement import Measurement
from bench.scenario import Stage
from bench.scenarios.calls import build_client
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
    also between two brokers. The start also by a client in Go, which takes less of the wait for itself, where there is one.
    """
    client = build_client(stage.tools)
    with stage.testbed() as site:
        for number in range(stage.rounds):
            if client is not None:
                yield from run_load(_GO, _task(site, Figure.ENQUEUE_TO_START, f"go-{number}", str(client)))
            for module, figure in _FULL if stage.full else _QUICK:
                yield from run_load(module, _task(site, figure, f"{module.rpartition('.')[2]}-{number}"))
        if stage.full:
            yield from _between_two_brokers(stage, site, client)


def _between_two_brokers(stage: Stage, site: Site, client: Path | None) -> Iterator[Measurement]:
    """Enqueued at the one, leased at the other."""
    database = Database(site.database_url, site.database_pid)
    with running_broker(database, stage.folder / "broker-2.log") as other:
        both = replace(site, lease_address=other.address)
        for number in range(stage.rounds):
            if client is not None:
                yield from run_load(
                    _GO, _task(both, Figure.ENQUEUE_TO_START, f"go-two-{number}", str(client))
                )
            for figure in (Figure.ENQUEUE_TO_START, Figure.SCHEDULED_LATENESS):
                yield from run_load(_WAITS, _task(both, figure, f"two-{number}"))


def _task(site: Site, figure: Figure, queue: str, program: str = "") -> Task:
    return Task(site, Load(_BUSY_JOBS if figure in _BUSY else _SINGLE_JOBS), queue, (figure,), program)
