"""Makes brokers wait inside a transaction, so that a test decides what happens meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg

from tests.contract.tables import Tables
from tests.contract.waiting import eventually

_WAITING = """
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'reprise' AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def locked(tables: Tables, table: str) -> AsyncIterator[None]:
    """Nobody else can write to the table inside the block."""
    async with await psycopg.AsyncConnection.connect(tables.database_url) as connection:
        await connection.execute(f"LOCK TABLE noetl.{table} IN EXCLUSIVE MODE".encode())
        yield


async def wait_until_locked_out(tables: Tables, count: int = 1) -> None:
    """Returns once so many of the brokers' connections wait for a lock."""

    async def are_waiting() -> bool:
        return bool(await tables.value(f"SELECT count(*) >= %s {_WAITING}", count))

    await eventually(are_waiting)


async def cut_connections_locked_out(tables: Tables) -> None:
    """Ends every connection of a broker that waits for a lock, once there is one."""
    await wait_until_locked_out(tables)
    await tables.rows(f"SELECT pg_terminate_backend(pid) {_WAITING}")


async def turn_waits_since(tables: Tables) -> datetime:
    """When the statement began by which a broker waits for the turn of an execution; returns once one does."""
    found: list[tuple[datetime]] = []

    async def is_there() -> bool:
        found[:] = await tables.rows(
            f"SELECT query_start {_WAITING} AND query LIKE %s", "%ORDER BY execution_id FOR UPDATE%"
        )
        return bool(found)

    await eventually(is_there)
    ((since,),) = found
    return since
