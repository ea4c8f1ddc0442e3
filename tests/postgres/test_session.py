"""A session bears statements of any size, and however they end it is good for the next one."""

import asyncio

import psycopg
import pytest

from broker.errors import Unavailable
from broker.store.session import Session
from tests.contract.tables import Tables
from tests.contract.waiting import eventually

LARGE = 20_000_000  # characters: many times what a socket holds
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"


async def test_large_statements_and_large_results_arrive_whole(session: Session) -> None:
    text = "x" * LARGE

    assert await session.rows("SELECT %b::text, repeat('y', %b::int4)", (text, LARGE)) == [
        (text, "y" * LARGE)
    ]


async def test_a_statement_that_fails_leaves_the_connection_as_it_was(session: Session) -> None:
    (before,) = await session.rows("SELECT pg_backend_pid()")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await session.rows("SELECT 1 / %b::int4", (0,))

    assert await session.rows("SELECT pg_backend_pid()") == [before]


async def test_a_statement_whose_task_is_cancelled_is_stopped_and_leaves_the_connection_as_it_was(
    session: Session, tables: Tables
) -> None:
    (before,) = await session.rows("SELECT pg_backend_pid()")
    running = asyncio.create_task(session.rows("SELECT pg_sleep(60)"))
    await eventually(lambda: _count(tables, 1))

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await _count(tables, 0)
    assert await session.rows("SELECT pg_backend_pid()") == [before]


async def test_a_connection_that_is_lost_under_way_is_made_anew(session: Session, tables: Tables) -> None:
    (before,) = await session.rows("SELECT pg_backend_pid()")
    running = asyncio.create_task(session.rows("SELECT pg_sleep(60)"))
    await eventually(lambda: _count(tables, 1))

    await tables.rows("SELECT pg_terminate_backend(%s)", before[0])
    with pytest.raises(Unavailable):
        await running

    assert await session.rows("SELECT pg_backend_pid()") != [before]


async def _count(tables: Tables, count: int) -> bool:
    return bool(await tables.value(SLEEPING) == count)
