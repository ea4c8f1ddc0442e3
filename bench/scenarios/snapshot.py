"""Mixed lifecycles through one queue while some session holds an old snapshot: no dead row can be removed as long as it does.

What is compared is the rate at the end with that at the beginning, and single jobs before the snapshot with those at its end.
"""

import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg

from bench.measurement import Measurement, Row, Series
from bench.scenario import Stage
from bench.testbed import run_load
from bench.workload import Figure, Load, Site, Task

_FULL_SECONDS = 300.0
_SHORT_SECONDS = 30.0
# Some three seconds each, all of one queue: what is dead lies in front of what waits.
_SLICE = Load(40_000)
_SINGLE = Load(200)
_QUEUE = "snapshot"
_FIGURE = "mixed lifecycles under a held snapshot"
_DEAD = (
    "SELECT sum(n_dead_tup)::float8 FROM pg_stat_user_tables WHERE relname IN ('ready', 'delayed', 'lease')"
)


def measure(stage: Stage) -> Iterator[Measurement]:
    """Slices one after the other, for five minutes at length; one round, whatever the stage says, as it takes so long."""
    with stage.testbed() as site, psycopg.connect(site.database_url) as holder:
        _slice(site)
        yield from _waits(site, "before the snapshot")
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT count(*) FROM noetl.ready")
        started = time.monotonic()
        points: list[tuple[float, float]] = []
        while time.monotonic() - started < (_FULL_SECONDS if stage.full else _SHORT_SECONDS):
            rate = _slice(site)
            points.append((time.monotonic() - started, rate))
        yield from _waits(site, "at its end")
        yield Series(_FIGURE, "reprise", "lifecycles/s", points)
        yield Row(
            _FIGURE, "reprise", values=_first_and_last(points) | {"dead_rows_of_lanes": _dead_rows(site)}
        )


def _slice(site: Site) -> float:
    (row,) = run_load("bench.loads.grpc_load", Task(site, _SLICE, _QUEUE, (Figure.MIXED,)))
    return row.values["per_second"]


def _waits(site: Site, setting: str) -> Iterator[Row]:
    task = Task(site, _SINGLE, _QUEUE, (Figure.ENQUEUE_TO_START,))
    for row in run_load("bench.loads.waits_load", task):
        yield replace(row, setting=setting)


def _first_and_last(points: list[tuple[float, float]]) -> dict[str, float]:
    """Rates of the first and of the last slices, three of each where there are as many."""
    count = min(3, len(points))
    first = sum(rate for _, rate in points[:count]) / count
    last = sum(rate for _, rate in points[-count:]) / count
    return {"first_per_second": first, "last_per_second": last, "last_of_first": last / first}


def _dead_rows(site: Site) -> float:
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute(_DEAD).fetchone()
    assert row is not None
    return float(row[0])
