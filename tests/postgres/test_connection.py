"""A server that has gone without a word, or stands still, is given up, by every kind of connection that a broker has."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from broker.errors import Unavailable
from broker.store import connection as connecting
from broker.store import reader as reading
from broker.store.connection import bounds_of, connect
from broker.store.reader import Reader
from broker.store.session import Session
from tests.contract.client import PATIENCE_SECONDS

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes any longer than a moment is given up."""
    monkeypatch.setattr(connecting, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(reading, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(reading, "STATEMENT_TIMEOUT_SECONDS", 0)


@pytest.fixture
async def reader(
    answers_at_once: None, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reader]:
    """A reader of a single connection."""
    monkeypatch.setattr(reading, "CONNECTIONS", 1)
    opened = Reader(database_url)
    await opened.open()
    yield opened
    await opened.close()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Inside the block a process of the server stands still; the kernel goes on for it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def gives_up(call: Callable[[], Awaitable[object]]) -> None:
    """Returns once `call` has raised Unavailable; it must not take for ever."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(Unavailable):
            await call()


async def test_a_statement_of_a_frozen_server_is_given_up_and_the_next_one_has_a_connection_of_its_own(
    answers_at_once: None, database_url: str
) -> None:
    session = Session(database_url, statement_timeout_seconds=0.2)
    ((pid,),) = await session.rows(PID)

    with frozen(pid):
        await gives_up(lambda: session.rows(PID))
        assert await session.rows(PID) != [(pid,)]

    await session.close()


async def test_a_commit_of_a_frozen_server_is_given_up(answers_at_once: None, database_url: str) -> None:
    session = Session(database_url, statement_timeout_seconds=0.2)
    ((pid,),) = await session.rows(PID)

    async def commit() -> None:
        async with session.transaction():
            await session.rows(PID)
            freezing.enter_context(frozen(pid))

    with ExitStack() as freezing:
        await gives_up(commit)
        assert await session.rows(PID) != [(pid,)]

    await session.close()


async def test_a_reader_gives_up_a_frozen_server(reader: Reader) -> None:
    ((pid,),) = await reader.rows(PID)

    with frozen(pid):
        await gives_up(lambda: reader.rows(PID))


async def test_every_connection_is_probed_while_nothing_comes(database_url: str) -> None:
    connection = await connect(database_url, statement_seconds=5)

    parameters = connection.info.get_parameters()
    await connection.close()

    assert {name: parameters[name] for name in bounds_of(database_url)} == {
        "connect_timeout": "5",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }


def test_a_url_that_sets_a_bound_itself_wins() -> None:
    bounds = bounds_of("postgresql://there/db?tcp_user_timeout=60000&keepalives_idle=77")

    assert {"tcp_user_timeout", "keepalives_idle"}.isdisjoint(bounds)
    assert bounds["keepalives_count"] == 3
