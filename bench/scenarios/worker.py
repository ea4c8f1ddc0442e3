"""The Python worker itself: handlers that do nothing, by one process, and python steps."""

from collections.abc import Iterator

from bench.measurement import Measurement
from bench.scenario import Stage
from bench.testbed import run_load
from bench.workload import Load, Task

_JOBS = 20_000


def measure(stage: Stage) -> Iterator[Measurement]:
    """Jobs per second and the worker's CPU time for each (`load`), and how long a step takes."""
    with stage.testbed() as site:
        for number in range(stage.rounds):
            yield from run_load("bench.loads.worker_load", Task(site, Load(_JOBS), f"worker-{number}", ()))
