"""A thousand lease streams on one broker, each from a worker of its own.

Twenty of them are busy: of the others half have all their slots taken by long jobs of the same queue, so they give no credits, and half
wait with credits at queues that are empty. Then all are busy with ten slots each. Then two streams, one with a thousand times the
other's credits.
"""

from collections.abc import Iterator
from dataclasses import replace

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.report.medians import with_ratios
from bench.scenario import NO_GO, Stage
from bench.testbed import run_load
from bench.workload import Crowd, Figure, Load, Site, Task

_LOAD = Load(40_000)
_FULL_LOAD = Load(100_000)
_WARM_UP = Load(10_000)
_FIGURE = "mixed lifecycles, a thousand streams"
_ALONE = "20 streams alone"
# Twenty streams with the credits of the two of other scenarios together.
_CROWDS = {
    _ALONE: Crowd(20, 100),
    "20 busy of 1000": Crowd(20, 100, taken=490, idle=490),
    "1000 busy, 10 slots each": Crowd(1000, 10),
}


def measure(stage: Stage) -> Iterator[Measurement]:
    """All turn by turn on one database; first a round that does not count."""
    load = _FULL_LOAD if stage.full else _LOAD
    if (client := build_client(stage.tools)) is None:
        yield Row(_FIGURE, "reprise", note=NO_GO)
        return
    program = str(client)
    with stage.testbed() as site:
        _turn(site, program, _WARM_UP, "warm-up")
        for number in range(stage.rounds):
            yield from with_ratios(_turn(site, program, load, f"mixed-{number}"), "of_20_alone", (_ALONE,))
            task = Task(site, load, f"fair-{number}", (Figure.SMALL_BESIDE_BIG,))
            yield from run_load("bench.loads.crowd_load", task)


def _turn(site: Site, program: str, load: Load, queue: str) -> list[Row]:
    """Each crowd in a queue of its own."""
    rows: list[Row] = []
    for subject, crowd in _CROWDS.items():
        task = Task(site, load, f"{queue}-{crowd.busy}-{crowd.idle}", (Figure.MIXED,), program, crowd)
        measured = run_load("bench.loads.crowd_load", task)
        rows += [replace(row, figure=_FIGURE, subject=subject) for row in measured]
    return rows
