"""The processes that are measured: a PostgreSQL of our own with its durability on, and brokers on it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.measurement import Row, hear
from bench.profiling import POSTGRES_SETTINGS, profiled
from bench.workload import Site, Task
from broker.embedded import PostgresServer, Source, find_binaries
from broker.embedded.identity import Identity, launch_command

_READY = "ready listen="
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LOAD_SECONDS = 300.0


class ProcessFailed(Exception):
    """A broker or a load process did not do its part; the text is what it wrote last."""


@dataclass(frozen=True, slots=True)
class Database:
    """A running PostgreSQL: its first database, and the process whose children do the work."""

    url: str
    pid: int


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker, or another server in its place."""

    address: str
    pid: int


@contextmanager
def testbed(
    folder: Path, sources: tuple[Source, ...], *broker_options: str, profiles: Path | None
) -> Iterator[Site]:
    """An empty database and one broker, running inside the block, in `folder`, which should lie on a disk like that of production.

    Loads on it are profiled where there is a folder for `profiles`.
    """
    with (
        running_database(folder, sources, counts_statements=profiles is not None) as database,
        running_broker(database, folder / "broker.log", *broker_options) as broker,
    ):
        yield Site(broker.address, database.url, database.pid, broker.pid, profiles=str(profiles or ""))


@contextmanager
def running_database(
    folder: Path, sources: tuple[Source, ...], *, counts_statements: bool = False
) -> Iterator[Database]:
    """An empty PostgreSQL as Reprise starts its own; `counts_statements`: as a profile needs it."""
    log = folder / "postgres.log"
    settings = POSTGRES_SETTINGS if counts_statements else None
    with PostgresServer(folder / "data", find_binaries(*sources), log=log, settings=settings) as server:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        yield Database(server.database_url(), pid)


@contextmanager
def running_broker(database: Database, log: Path, *options: str) -> Iterator[Broker]:
    """A broker process on `database`, which it migrates, with these options of `reprise broker`."""
    arguments = ["-m", "broker.cli", "broker", "--listen", "127.0.0.1:0", "--migrate", *options]
    with running_process(arguments, log, REPRISE_DATABASE_URL=database.url) as broker:
        yield broker


@contextmanager
def running_process(arguments: list[str], log: Path, **environment: str) -> Iterator[Broker]:
    """Python with these arguments, once it has said at which address it serves; stopped at the end of the block."""
    command = launch_command(Identity.OWN, [sys.executable, *arguments], on_parent_death=signal.SIGKILL)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        yield Broker(_address(process, log), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_load(module: str, task: Task, seconds: float = _LOAD_SECONDS) -> list[Row]:
    """What the load process `python -m module` has measured. Raises ProcessFailed, also when it takes longer than `seconds`.

    A checkpoint comes first, so that every round starts alike.
    """
    checkpoint(task.site.database_url)
    command = [sys.executable, "-m", module, task.to_json()]
    name = f"{module.rpartition('.')[2]}-{task.queue}"
    with profiled(task.site, name) if task.site.profiles else nullcontext():
        output = run_to_end(command, module, seconds)
    return hear(output)


def checkpoint(database_url: str) -> None:
    """Writes out what earlier rounds left in memory, so that no later one pays for it."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def run_to_end(command: list[str], name: str, seconds: float = _LOAD_SECONDS) -> str:
    """What a process writes to its standard output. Raises ProcessFailed when it fails, or does not end within `seconds`."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(f"{name} did not end within {seconds:.0f} s") from error
    if ended.returncode != 0:
        raise ProcessFailed(f"{name} ended with code {ended.returncode}:\n{ended.stderr[-4000:]}")
    return ended.stdout


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up_at = time.monotonic() + _READY_SECONDS
    while True:
        ended = process.poll() is not None
        written = log.read_text(errors="replace")
        if "\n" in (after := written.partition(_READY)[2]):
            return after.split()[0]
        if ended or time.monotonic() > give_up_at:
            raise ProcessFailed(f"{log.stem} did not become ready:\n{written[-4000:]}")
        time.sleep(0.02)
