"""Batches: enqueue, burn-down of waiting jobs, and both at once, through gRPC and raw, turn by turn on one database that grows.

Raw is measured twice: by the product's own statements, and by the prototype that they grew from. `of raw` is the share of the
better one.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.report.medians import with_ratios
from bench.scenario import Stage
from bench.testbed import run_load
from bench.workload import PRODUCERS, Figure, Load, Site, Task

_RAW = ("raw", "prototype")
_MODULES = {
    "reprise": "bench.loads.batch_load",
    "raw": "bench.loads.raw_load",
    "prototype": "bench.loads.prototype_load",
}
_NEEDS = {"prototype": ("asyncpg", "uvloop")}
# Jobs by batch: some seconds of each.
_QUICK = {500: 60_000, 100: 40_000, 10: 10_000}
_FULL = {500: 100_000, 100: 60_000, 10: 15_000}
_WARM_UP = Load(10_000)
_SHAPES = ((Figure.ENQUEUE, Figure.BURN_DOWN), (Figure.MIXED,))


def measure(stage: Stage) -> Iterator[Measurement]:
    """Every shape in every batch size, by every route that can be had; first a round that does not count."""
    routes, missing = _routes()
    yield from missing
    program = str(build_client(stage.tools) or "")
    with stage.testbed() as site:
        list(_turn(site, program, routes, _WARM_UP, (Figure.MIXED,), "warm-up"))
        for number in range(stage.rounds):
            # Autovacuum takes away the rows of a turn in the next one: who pays for whom changes by round.
            first = number % len(routes)
            in_turn = dict([*routes.items()][first:] + [*routes.items()][:first])
            for batch, jobs in (_FULL if stage.full else _QUICK).items():
                load = Load(jobs // (batch * PRODUCERS) * batch * PRODUCERS, batch)
                for figures in _SHAPES:
                    queue = f"{figures[0].name}-{batch}-{number}"
                    yield from with_ratios(
                        _turn(site, program, in_turn, load, figures, queue), "of_raw", _RAW
                    )


def _routes() -> tuple[dict[str, str], list[Row]]:
    """The modules of the routes whose packages are there, and a row for each other."""
    missing = {
        subject: f"not measured: {', '.join(packages)} not installed"
        for subject, packages in _NEEDS.items()
        if not all(importlib.util.find_spec(package) for package in packages)
    }
    routes = {subject: module for subject, module in _MODULES.items() if subject not in missing}
    rows = [
        Row(figure, subject, note=note)
        for subject, note in missing.items()
        for figures in _SHAPES
        for figure in figures
    ]
    return routes, rows


def _turn(
    site: Site, program: str, routes: dict[str, str], load: Load, figures: tuple[Figure, ...], queue: str
) -> list[Row]:
    """One after the other, each in a queue of its own: nothing of one is left for the next."""
    rows: list[Row] = []
    for subject, module in routes.items():
        rows += run_load(module, Task(site, replace(load), f"{queue}-{subject}", figures, program))
    return rows
