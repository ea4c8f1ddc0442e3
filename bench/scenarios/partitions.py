"""Single jobs while partitions are made and dropped: how long anybody waits because of it.

A second broker of a shorter retention drops the days, as a broker does that was away for long; the days ahead are made meanwhile.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from bench.measurement import Measurement, Row
from bench.scale_data import Scale, fill
from bench.scenario import Stage
from bench.testbed import Database, run_load, running_broker
from bench.workload import Figure, Load, Site, Task

_DAYS = 12
_KEPT_DAYS = 2
_HISTORY = Scale(done=600_000, delayed=60_000, waiting=60_000, days=_DAYS)
_SINGLE = Load(500)
_FIGURE = "partitions made and dropped"
_PAUSE_SECONDS = 1.0
_COUNT = r"SELECT count(*) FROM noetl.partitions('noetl.job') WHERE name ~ '^job_\d{8}$'"


def measure(stage: Stage) -> Iterator[Measurement]:
    """Waits on a quiet database, then while days come and go; how many did. One round, as the days go only once."""
    with stage.testbed("--retention-days", "0") as site:
        for _ in fill(site.database_url, _HISTORY):
            pass
        yield from _waits(site, "quiet")
        before = _partitions(site)
        second = Database(site.database_url, site.database_pid)
        options = ("--retention-days", str(_KEPT_DAYS))
        with running_broker(second, stage.folder / "second.log", *options), _making(site) as made:
            yield from _waits(site, "while partitions are made and dropped")
        dropped = before + len(made) - _partitions(site)
        yield Row(_FIGURE, "reprise", values={"made": len(made), "dropped": dropped})


def _waits(site: Site, setting: str) -> Iterator[Row]:
    task = Task(site, _SINGLE, "partitions", (Figure.ENQUEUE_TO_START,))
    for row in run_load("bench.loads.waits_load", task):
        yield replace(row, setting=setting)


@contextmanager
def _making(site: Site) -> Iterator[list[int]]:
    """One day more ahead each second while the block runs; the list grows with each."""
    made: list[int] = []
    ended = threading.Event()

    def make() -> None:
        with psycopg.connect(site.database_url, autocommit=True) as connection:
            while not ended.wait(_PAUSE_SECONDS):
                connection.execute("SELECT noetl.ensure_partitions(%s)", (8 + len(made),))
                made.append(1)

    maker = threading.Thread(target=make)
    maker.start()
    try:
        yield made
    finally:
        ended.set()
        maker.join()


def _partitions(site: Site) -> int:
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute(_COUNT).fetchone()
    assert row is not None
    return int(row[0])
