"""Where the CPU time of one load goes: the broker's by function (py-spy), the database's by statement (pg_stat_statements).

A profile costs time itself, so what is measured meanwhile is slower: it tells shares, not rates. Where a system lets nobody look into a
process that is not its child, py-spy must be root.
"""

import re
import signal
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from bench.workload import Site

POSTGRES_SETTINGS: Mapping[str, str] = {"shared_preload_libraries": "pg_stat_statements"}
"""With which a server counts its statements."""
_SAMPLES_PER_SECOND = 200
_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_LINES = 40
_WIDTH = 180
_STATEMENTS = """
SELECT query, calls, rows, total_exec_time, shared_blks_hit + shared_blks_read, wal_bytes FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY total_exec_time DESC LIMIT %s
"""
_WRITES = re.compile(r"\b(DELETE FROM|INSERT INTO|UPDATE) ([a-z_.]+)")
_PLACE = re.compile(r"\((.*?)(:\d+)?\)$")


class ProfileFailed(Exception):
    """The broker cannot be watched; the text is what py-spy says."""


@contextmanager
def profiled(site: Site, name: str) -> Iterator[None]:
    """Writes what happens in the block to the folder of profiles, by a number and `name`: -database.txt, -broker.txt and the stacks behind
    the latter, -broker.folded.
    """
    folder = Path(site.profiles)
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{len(list(folder.glob('*-database.txt'))) + 1:02}-{name}"
    with _of_database(site.database_url, Path(f"{stem}-database.txt")):
        if site.broker_pid:
            with _of_broker(site.broker_pid, Path(f"{stem}-broker")):
                yield
        else:
            yield


@contextmanager
def _of_database(database_url: str, report: Path) -> Iterator[None]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")
        yield
        rows = connection.execute(_STATEMENTS, (_LINES,)).fetchall()
    table = Table(title="statements by their time, waits for a core included", title_justify="left")
    for heading in ("ms", "calls", "rows", "us per row", "blocks", "WAL bytes"):
        table.add_column(heading, justify="right")
    table.add_column("statement")
    for query, calls, count, milliseconds, blocks, wal in rows:
        per_row = f"{milliseconds * 1000 / count:.1f}" if count else ""
        table.add_row(
            f"{milliseconds:.0f}", str(calls), str(count), per_row, str(blocks), str(wal), _short(query)
        )
    _write(report, table)


def _short(query: str) -> str:
    """A statement by what it writes, or by its beginning."""
    writes = [f"{verb.split()[0].lower()} {table}" for verb, table in _WRITES.findall(query)]
    return ", ".join(dict.fromkeys(writes)) or " ".join(query.split())[:80]


@contextmanager
def _of_broker(pid: int, stem: Path) -> Iterator[None]:
    stacks = stem.with_suffix(".folded")
    program = Path(sysconfig.get_path("scripts")) / "py-spy"
    options = ["--pid", str(pid), "--subprocesses", "--function", "--rate", str(_SAMPLES_PER_SECOND)]
    command = [str(program), "record", *options, "--format", "raw", "--output", str(stacks)]
    with stem.with_suffix(".log").open("w") as output:
        spy = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_until_sampling(spy, stem.with_suffix(".log"))
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        try:
            spy.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            spy.kill()
            spy.wait()
    _write(stem.with_suffix(".txt"), *_tables(stacks))


def _wait_until_sampling(spy: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while "Sampling process" not in log.read_text():
        if spy.poll() is not None or time.monotonic() > give_up_at:
            raise ProfileFailed(
                f"py-spy does not watch the broker, perhaps it must be root:\n{log.read_text()}"
            )
        time.sleep(0.02)


def _tables(stacks: Path) -> Iterator[Table]:
    """Shares of the samples: by function, own and with what it calls, and by package."""
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    for line in stacks.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        inclusive.update(dict.fromkeys(frames, int(count)))
        packages[_package(frames[-1])] += int(count)
    total = own.total()
    for title, counts in (
        ("packages", packages),
        ("functions, their own time and that of the C code they call", own),
        ("functions, with what they call", inclusive),
    ):
        table = Table(title=f"{title}: of {total} samples", title_justify="left")
        table.add_column("%", justify="right")
        table.add_column("")
        for name, samples in counts.most_common(_LINES):
            table.add_row(f"{100 * samples / total:.1f}", name)
        yield table


def _package(frame: str) -> str:
    place = _PLACE.search(frame)
    if place is None:
        return frame
    folder, _, module = place.group(1).rpartition("/")
    return folder or module


def _write(report: Path, *tables: Table) -> None:
    with report.open("w") as file:
        console = Console(file=file, width=_WIDTH)
        for table in tables:
            console.print(table)
