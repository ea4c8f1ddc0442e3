"""The hot path and the reads on a database with the history of weeks: in pairs with an empty one on the same server, turn by turn.

`of_empty` is the share of the empty one's figure: of rates at least, of waits at most; so are the other names that end like it, of
what one job costs.
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
_LOAD = Load(60_000)
_SINGLE = Load(200)
_RATES = (Figure.ENQUEUE, Figure.BURN_DOWN, Figure.MIXED)
_COSTS = ("database_us", "broker_us", "blocks_touched", "wal_bytes")
_WAITS = (Figure.ENQUEUE_TO_START, Figure.RETRY_LATENESS)
_READS = Load(1)

# What all statements have done up to now: blocks touched in this database, bytes of WAL written on the server.
_COUNTERS = """
SELECT blks_hit + blks_read, pg_current_wal_insert_lsn() - '0/0'::pg_lsn FROM pg_stat_database WHERE datname = current_database()
"""


def measure(stage: Stage) -> Iterator[Measurement]:
    """Rates and waits in at least five pairs, then every read on the full one."""
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
                list(_rates(site, "warm-up"))
            for number in range(max(_PAIRS, stage.rounds)):
                yield from _pair(sites, number)
            yield from run_load("bench.loads.reads_load", Task(sites["full"], _READS, "", ()))


def _pair(sites: dict[str, Site], number: int) -> list[Row]:
    """One round on both, in the one order and then in the other."""
    turns = list(sites.items()) if number % 2 else list(sites.items())[::-1]
    rates: list[Row] = []
    waits: list[Row] = []
    for subject, site in turns:
        rates += [replace(row, subject=subject) for row in _rates(site, f"rates-{number}")]
    for figure in _WAITS:
        for subject, site in turns:
            rows = run_load("bench.loads.waits_load", Task(site, _SINGLE, f"waits-{number}", (figure,)))
            waits += [replace(row, subject=subject) for row in rows]
    rates = with_ratios(rates, "of_empty", ("empty",))
    for cost in _COSTS:
        rates = with_ratios(rates, f"{cost}_of_empty", ("empty",), cost)
    return rates + with_ratios(waits, "of_empty", ("empty",), "p50_ms")


def _rates(site: Site, queue: str) -> Iterator[Row]:
    """Each rate by itself, with the blocks that were touched and the WAL that was written for each job."""
    for figure in _RATES:
        blocks, wal = _counters(site)
        (row,) = run_load("bench.loads.grpc_load", Task(site, _LOAD, queue, (figure,)))
        later_blocks, later_wal = _counters(site)
        counted = {
            "blocks_touched": (later_blocks - blocks) / _LOAD.jobs,
            "wal_bytes": (later_wal - wal) / _LOAD.jobs,
        }
        yield replace(row, values={**row.values, **counted})


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
