"""Reading connections: a small pool with the planner's normal settings, apart from the sessions of the verbs.

Owns how the broker reads what it shows to people. Must not write: every connection is read only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool

from broker.errors import Unavailable
from broker.store.connection import LATE_SECONDS, Connection, bounds_of

CONNECTIONS = 4
STATEMENT_TIMEOUT_SECONDS = 10
_WAIT_SECONDS = 5.0
_SETTINGS: Mapping[str, str] = {
    "application_name": "reprise-reader",
    "search_path": "noetl,pg_catalog",
    "statement_timeout": str(STATEMENT_TIMEOUT_SECONDS * 1000),
    "default_transaction_read_only": "on",
    "jit": "off",
    # Statements of several parts answer in their order, and a reader takes no core from the verbs.
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
}

Row = tuple[Any, ...]


class Reader:
    """Runs statements that change nothing, each on any connection of the pool. `open` before use, `close` after it."""

    def __init__(self, database_url: str) -> None:
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            database_url,
            connection_class=Connection,
            configure=_configure,
            kwargs={
                **bounds_of(database_url),
                "autocommit": True,
                "row_factory": tuple_row,
                # Plans fit the values of each call: partitions are pruned, rare values found by their index.
                "prepare_threshold": None,
                "options": " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items()),
            },
            min_size=1,
            max_size=CONNECTIONS,
            timeout=_WAIT_SECONDS,
            open=False,
        )

    async def open(self) -> None:
        """Starts to connect; returns at once, whether the database answers or not."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close()

    async def rows(
        self, statement: str, arguments: Mapping[str, object] | Sequence[object] = ()
    ) -> list[Row]:
        """All rows of one statement. Raises Unavailable when the database cannot be reached or takes too long."""
        try:
            async with self._pool.connection() as connection:
                cursor = connection.cursor(binary=True)
                await cursor.execute(statement.encode(), arguments)
                return await cursor.fetchall()
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable("the database is away or did not answer in time") from error

    async def row(
        self, statement: str, arguments: Mapping[str, object] | Sequence[object] = ()
    ) -> Row | None:
        """The first row of one statement, or None; otherwise like `rows`."""
        found = await self.rows(statement, arguments)
        return found[0] if found else None


async def _configure(connection: Connection) -> None:
    connection.answer_seconds = STATEMENT_TIMEOUT_SECONDS + LATE_SECONDS
