"""The processes that are measured: a PostgreSQL of our own with its durability on, and a broker on it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.workload import Measured, Site, Task, hear
from broker.embedded import PostgresServer, Source, find_binaries
from broker.embedded.identity import Identity, launch_command

_READY = "ready listen="
_READY_SECONDS = 60.0
_STOP_SECONDS = 10.0


class ProcessFailed(Exception):
    """A broker or a load process did not do its part; the text is what it wrote last."""


@contextmanager
def testbed(folder: Path, sources: tuple[Source, ...]) -> Iterator[Site]:
    """Database and broker, running inside the block, in `folder`, which should lie on a disk like that of production."""
    with PostgresServer(folder / "data", find_binaries(*sources), log=folder / "postgres.log") as server:
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        with _broker(server.database_url(), folder / "broker.log") as (broker, address):
            yield Site(address, server.database_url(), postmaster, broker.pid)


def run_load(module: str, task: Task) -> list[Measured]:
    """What the load process `python -m module` has measured. Raises ProcessFailed.

    A checkpoint comes first, so that every round starts alike.
    """
    with psycopg.connect(task.site.database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    command = [sys.executable, "-m", module, task.to_json()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise ProcessFailed(f"{module} ended with code {ended.returncode}:\n{ended.stderr[-4000:]}")
    return hear(ended.stdout)


@contextmanager
def _broker(database_url: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A broker process on an empty database, with the address at which it serves."""
    command = [sys.executable, "-m", "broker.cli", "broker", "--listen", "127.0.0.1:0", "--migrate"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch_command(Identity.OWN, command, on_parent_death=signal.SIGKILL),
            stdout=output, stderr=output, env={**os.environ, "REPRISE_DATABASE_URL": database_url},
        )  # fmt: skip
    try:
        yield process, _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up_at = time.monotonic() + _READY_SECONDS
    while True:
        ended = process.poll() is not None
        written = log.read_text(errors="replace")
        if "\n" in (after := written.partition(_READY)[2]):
            return after.split()[0]
        if ended or time.monotonic() > give_up_at:
            raise ProcessFailed(f"the broker did not become ready:\n{written[-4000:]}")
        time.sleep(0.02)
