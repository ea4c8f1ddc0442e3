"""What it costs to wait: broker and database while 100 workers are subscribed, a million jobs are delayed, and nothing happens."""

from collections.abc import Iterator

from bench.measurement import Measurement
from bench.scenario import Stage
from bench.testbed import run_load
from bench.workload import Load, Task

_DELAYED_JOBS = 1_000_000


def measure(stage: Stage) -> Iterator[Measurement]:
    """One stretch of a minute each round, on an empty database each time."""
    for _ in range(stage.rounds):
        with stage.testbed() as site:
            load = Load(_DELAYED_JOBS, batch=1000)
            yield from run_load("bench.loads.idle_load", Task(site, load, "idle", ()))
