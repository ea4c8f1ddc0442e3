"""Single jobs on a broker that does nothing else: how long from the call of Enqueue to the start, and how late retries start."""

from collections.abc import Iterator

from bench.measurement import Measurement
from bench.scenario import Stage
from bench.testbed import run_load
from bench.workload import Figure, Load, Task

_JOBS = 300
_LOADS = (
    ("bench.loads.at_rest", Figure.ENQUEUE_TO_START),
    ("bench.loads.raw_load", Figure.ENQUEUE_TO_START),
    ("bench.loads.at_rest", Figure.RETRY_LATENESS),
)


def measure(stage: Stage) -> Iterator[Measurement]:
    """Both figures through gRPC, and what the two statements between enqueue and lease take."""
    with stage.testbed() as site:
        for number in range(stage.rounds):
            for module, figure in _LOADS:
                queue = f"{module.rpartition('.')[2]}-{number}"
                yield from run_load(module, Task(site, Load(_JOBS), queue, (figure,)))
