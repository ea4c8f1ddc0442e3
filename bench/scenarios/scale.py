"""The hot path and the reads on a database with the history of weeks: in pairs with an empty one on the same server, turn by turn.

`of_empty` is the share of the empty one's figure: of rates at least, of waits at most.
"""

from collections.abc import Iterator
from dataclasses import replace

import psycopg

from bench.measurement import Measurement, Row
from bench.report.medians import with_ratios
from bench.scale_data import Scale, fill
from bench.scenario import Stage
from bench.testbed import Database, run_load, running_broker, running_database
from bench.workload import Figure, Load, Site, Task

_PAIRS = 5
_FULL = Scale()
_SHORT = Scale(done=200_000, delayed=20_000, waiting=20_000)
_MIXED = Load(60_000)
_SINGLE = Load(200)
_WAITS = (Figure.ENQUEUE_TO_START, Figure.RETRY_LATENESS)
_READS = Load(1)

# What all statements have done up to now: blocks touched in this database, bytes of WAL written on the server.
_COUNTERS = """
SELECT blks_hit + blks_read, pg_current_wal_insert_lsn() - '0/0'::pg_lsn FROM pg_stat_database WHERE datname = current_database()
"""


def measure(stage: Stage) -> Iterator[Measurement]:
    """Mixed lifecycles and waits in at least five pairs, then every read on the full one."""
    profiles = str(stage.profiles or "")
    with running_database(stage.folder, (stage.postgres,), counts_statements=bool(profiles)) as empty:
        full = _second(empty)
        with (
            running_broker(empty, stage.folder / "broker-empty.log") as of_empty,
            running_broker(full, stage.folder / "broker-full.log") as of_full,
        ):
            for _ in fill(full.url, _FULL if stage.full else _SHORT):
                pass
            sites = {
                "empty": Site(of_empty.address, empty.url, empty.pid, of_empty.pid, profiles=profiles),
                "full": Site(of_full.address, full.url, full.pid, of_full.pid, profiles=profiles),
            }
            for site in sites.values():
                _mixed(site, "warm-up")
            for number in range(max(_PAIRS, stage.rounds)):
                yield from _pair(sites, number)
            yield from run_load("bench.loads.reads_load", Task(sites["full"], _READS, "", ()))


def _pair(sites: dict[str, Site], number: int) -> list[Row]:
    """One round on both, in the one order and then in the other."""
    turns = list(sites.items()) if number % 2 else list(sites.items())[::-1]
    mixed: list[Row] = []
    waits: list[Row] = []
    for subject, site in turns:
        mixed += [replace(row, subject=subject) for row in _mixed(site, f"mixed-{number}")]
    for figure in _WAITS:
        for subject, site in turns:
            rows = run_load("bench.loads.waits_load", Task(site, _SINGLE, f"waits-{number}", (figure,)))
            waits += [replace(row, subject=subject) for row in rows]
    return with_ratios(mixed, "of_empty", ("empty",)) + with_ratios(waits, "of_empty", ("empty",), "p50_ms")


def _mixed(site: Site, queue: str) -> list[Row]:
    """Mixed lifecycles, with the blocks that were touched and the WAL that was written for each job."""
    blocks, wal = _counters(site)
    rows = run_load("bench.loads.grpc_load", Task(site, _MIXED, queue, (Figure.MIXED,)))
    later_blocks, later_wal = _counters(site)
    counted = {
        "blocks_touched": (later_blocks - blocks) / _MIXED.jobs,
        "wal_bytes": (later_wal - wal) / _MIXED.jobs,
    }
    return [replace(row, values={**row.values, **counted}) for row in rows]


def _counters(site: Site) -> tuple[float, float]:
    with psycopg.connect(site.database_url) as connection:
        row = connection.execute(_COUNTERS).fetchone()
    assert row is not None
    return float(row[0]), float(row[1])


def _second(database: Database) -> Database:
    """Another empty database of the same server."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE history")
    return replace(database, url=database.url.replace("/reprise?", "/history?"))
