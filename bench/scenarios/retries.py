"""The retry path: jobs that fail twice and then succeed, 0.1 s between attempts, decided by an expression; beside mixed lifecycles."""

from collections.abc import Iterator

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.scenario import NO_GO, Stage
from bench.testbed import run_load
from bench.workload import Figure, Load, Task

_JOBS = 20_000


def measure(stage: Stage) -> Iterator[Measurement]:
    """Attempts per second, with failures that differ and with one and the same, and the rate of mixed lifecycles in the same rounds."""
    if (client := build_client(stage.tools)) is None:
        yield Row(Figure.RETRY_PATH, "reprise", note=NO_GO)
        return
    program = str(client)
    with stage.testbed() as site:
        warm_up = Task(site, Load(2_000), "retry-warm-up", (Figure.RETRY_PATH,), program)
        run_load("bench.loads.retry_load", warm_up)
        for number in range(stage.rounds):
            load = Load(_JOBS)
            for figure in (Figure.RETRY_PATH, Figure.RETRY_PATH_ALIKE):
                retrying = Task(site, load, f"{figure.name.lower()}-{number}", (figure,), program)
                yield from run_load("bench.loads.retry_load", retrying)
            mixed = Task(site, load, f"mixed-{number}", (Figure.MIXED,), program)
            yield from run_load("bench.loads.batch_load", mixed)
