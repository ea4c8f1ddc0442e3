"""Single jobs while partitions are made and dropped, under load and an old snapshot: how long anybody waits because of it.

A second broker of a shorter retention drops the days, as a broker does that was away for long; the days ahead are made meanwhile.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.scale_data import Scale, fill
from bench.scenario import Stage
from bench.testbed import Database, run_load, running_broker
from bench.workload import Figure, Load, Site, Task

_DAYS = 12
_KEPT_DAYS = 2
_HISTORY = Scale(done=600_000, delayed=60_000, waiting=60_000, days=_DAYS)
_LOAD = Load(40_000)
_SINGLE = Load(500)
_FIGURE = "partitions made and dropped"
_PAUSE_SECONDS = 1.0
_COUNT = r"SELECT count(*) FROM noetl.partitions('noetl.job') WHERE name ~ '^job_\d{8}$'"


def measure(stage: Stage) -> Iterator[Measurement]:
    """Waits before, then while days come and go; how many did. One round, as the days go only once."""
    second_options = ("--retention-days", str(_KEPT_DAYS))
    with stage.testbed("--retention-days", "0") as site, psycopg.connect(site.database_url) as holder:
        for _ in fill(site.database_url, _HISTORY):
            pass
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT count(*) FROM noetl.ready")
        with _repeating(lambda number: run_load("bench.loads.batch_load", _load(stage, site, number))):
            yield from _waits(site, "before")
            before = _partitions(site)
            second = Database(site.database_url, site.database_pid)
            with (
                running_broker(second, stage.folder / "second.log", *second_options),
                _repeating(lambda number: _make(site, number), _PAUSE_SECONDS) as made,
            ):
                yield from _waits(site, "while partitions are made and dropped")
            dropped = before + len(made) - _partitions(site)
        yield Row(_FIGURE, "reprise", values={"made": len(made), "dropped": dropped})


def _load(stage: Stage, site: Site, number: int) -> Task:
    """Some two seconds of mixed lifecycles."""
    program = str(build_client(stage.tools) or "")
    return Task(site, _LOAD, f"load-{number}", (Figure.MIXED,), program)


def _make(site: Site, number: int) -> None:
    """One day more ahead."""
    with psycopg.connect(site.database_url, autocommit=True) as connection:
        connection.execute("SELECT noetl.ensure_partitions(%s)", (8 + number,))


def _waits(site: Site, setting: str) -> Iterator[Row]:
    task = Task(site, _SINGLE, "partitions", (Figure.ENQUEUE_TO_START,))
    for row in run_load("bench.loads.waits_load", task):
        yield replace(row, setting=setting)


@contextmanager
def _repeating(step: Callable[[int], object], pause_seconds: float = 0.0) -> Iterator[list[int]]:
    """Takes a step again and again while the block runs, with its number; the list grows with each. Raises what a step has raised."""
    taken: list[int] = []
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(pause_seconds):
            step(len(taken))
            taken.append(len(taken))

    with ThreadPoolExecutor(1) as executor:
        repeated = executor.submit(repeat)
        try:
            yield taken
        finally:
            ended.set()
        repeated.result()


def _partitions(site: Site) -> int:
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute(_COUNT).fetchone()
    assert row is not None
    return int(row[0])
