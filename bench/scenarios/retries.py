"""The retry path: jobs that fail twice and then succeed, 0.1 s between attempts, decided by an expression; beside mixed lifecycles."""

from collections.abc import Iterator

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.scenario import NO_GO, Stage
from bench.testbed import run_load
from bench.workload import Figure, Load, Task

_JOBS = 20_000


def measure(stage: Stage) -> Iterator[Measurement]:
    """Attempts per second, and the rate of mixed lifecycles in the same rounds."""
    if (client := build_client(stage.tools)) is None:
        yield Row(Figure.RETRY_PATH, "reprise", note=NO_GO)
        return
    program = str(client)
    with stage.testbed() as site:
        run_load("bench.loads.retry_load", Task(site, Load(2_000), "retry-warm-up", (), program))
        for number in range(stage.rounds):
            load = Load(_JOBS)
            yield from run_load("bench.loads.retry_load", Task(site, load, f"retry-{number}", (), program))
            mixed = Task(site, load, f"mixed-{number}", (Figure.MIXED,), program)
            yield from run_load("bench.loads.batch_load", mixed)
