"""Jobs in ten thousand queues over 160 lease streams of 64 queues each, beside the same load and streams at one queue."""

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
_FIGURE = "mixed lifecycles, ten thousand queues"
_ONE = "one queue"
# 160 streams with about the credits of the two of other scenarios together. 64 queues are the most that a stream may have.
_CROWDS = {
    _ONE: Crowd(160, 12),
    "10000 queues": Crowd(160, 12, queues=10_000, queues_of_stream=64),
}


def measure(stage: Stage) -> Iterator[Measurement]:
    """Turn by turn on one database; the first turn does not count, it makes the queues."""
    load = _FULL_LOAD if stage.full else _LOAD
    if (client := build_client(stage.tools)) is None:
        yield Row(_FIGURE, "reprise", note=NO_GO)
        return
    program = str(client)
    with stage.testbed() as site:
        _turn(site, program, _LOAD)
        for _ in range(stage.rounds):
            yield from with_ratios(_turn(site, program, load), "of_one_queue", (_ONE,))


def _turn(site: Site, program: str, load: Load) -> list[Row]:
    rows: list[Row] = []
    for subject, crowd in _CROWDS.items():
        task = Task(site, load, f"of-{crowd.queues}", (Figure.MIXED,), program, crowd)
        measured = run_load("bench.loads.crowd_load", task)
        rows += [replace(row, figure=_FIGURE, subject=subject) for row in measured]
    return rows
