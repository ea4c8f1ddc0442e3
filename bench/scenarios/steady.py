"""2 000 jobs a second for as long as one likes: waits, dead rows of the lanes and the disk over time.

What is compared is the last third with the first. Nothing is checkpointed, vacuumed or waited for in between but by the database itself.
"""

import sys
import time
from collections.abc import Iterator
from statistics import median

import psycopg

from bench.loads.steady_load import JOBS_PER_SECOND
from bench.measurement import Measurement, Row, Series, hear
from bench.scenario import Stage
from bench.testbed import run_to_end
from bench.workload import Figure, Load, Site, Task

_SLICE_SECONDS = 20
_LOAD = Load(JOBS_PER_SECOND * _SLICE_SECONDS, batch=40)
_STATE = """
SELECT (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname IN ('ready', 'delayed', 'lease'))::float8,
  (SELECT sum(pg_total_relation_size(lane)) FROM unnest('{noetl.ready,noetl.delayed,noetl.lease}'::regclass[]) lane)::float8,
  pg_database_size(current_database())::float8
"""


def measure(stage: Stage) -> Iterator[Measurement]:
    """Slice after slice; one round, whatever the stage says."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with stage.testbed() as site:
        _slice(site)
        started = time.monotonic()
        while (at := time.monotonic() - started) < 60 * stage.minutes:
            waits = _slice(site)
            dead, lanes, disk = _state(site)
            for name, unit, value in (
                ("p50", "ms", waits["p50_ms"]),
                ("p99", "ms", waits["p99_ms"]),
                ("dead rows of the lanes", "rows", dead),
                ("the lanes", "MB", lanes / 1e6),
                ("the whole database", "GB", disk / 1e9),
            ):
                curves.setdefault((name, unit), []).append((at, value))
        for (name, unit), points in curves.items():
            yield Series(Figure.STEADY, name, unit, points)
    length = max(1, len(curves["p50", "ms"]) // 3)
    for setting, third in (("first third", slice(None, length)), ("last third", slice(-length, None))):
        yield Row(
            Figure.STEADY,
            "reprise",
            setting,
            {
                "p50_ms": _median(curves["p50", "ms"][third]),
                "p99_ms": _median(curves["p99", "ms"][third]),
                "dead_rows_of_lanes": _median(curves["dead rows of the lanes", "rows"][third]),
                "lanes_mb": _median(curves["the lanes", "MB"][third]),
                "disk_bytes_per_job": _growth(curves["the whole database", "GB"][third]) * 1e9 / _LOAD.jobs,
            },
        )


def _slice(site: Site) -> dict[str, float]:
    task = Task(site, _LOAD, "steady", (Figure.STEADY,))
    (row,) = hear(
        run_to_end([sys.executable, "-m", "bench.loads.steady_load", task.to_json()], "steady_load")
    )
    return dict(row.values)


def _state(site: Site) -> tuple[float, float, float]:
    """Dead rows of the lanes, the bytes of the lanes, the bytes of the database."""
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute(_STATE).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def _median(points: list[tuple[float, float]]) -> float:
    return median(value for _, value in points)


def _growth(points: list[tuple[float, float]]) -> float:
    """By how much a curve rises from one point to the next, on average."""
    return (points[-1][1] - points[0][1]) / max(1, len(points) - 1)
