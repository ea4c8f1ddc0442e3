"""Lease statements of a busy broker that are small keep some time between them, so that the next one is larger.

How long is a pure decision, with tests of its own. Here the time is long, and passes only where a test moves the timers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psycopg
import pytest

from broker.dispatcher import dispatcher, lookout
from broker.store.grant import grant
from tests.contract.client import PATIENCE_SECONDS, Client
from tests.contract.waiting import settled, waiting
from tests.fixtures_broker import MoveTimers

PAUSE_SECONDS = 60.0
NEVER_SECONDS = 3600.0
# More than a sweep for jobs that fall due keeps for these: it may come at any moment.
CREDITS = 100


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch, move_timers: MoveTimers) -> list[int]:
    """How many leases each lease statement has granted. The next one waits for PAUSE_SECONDS, and nobody looks unasked."""
    counts: list[int] = []
    took_at_least = 0.0

    async def counted(*arguments: Any) -> Any:
        nonlocal took_at_least
        began_at = asyncio.get_running_loop().time()
        granted = await grant(*arguments)
        took_at_least = asyncio.get_running_loop().time() - began_at
        counts.append(len(granted.leases))
        return granted

    def pause_after(*, slots: int, most: int, took_seconds: float, busy_seconds: float) -> float:
        assert counts[-1] <= slots <= most
        assert took_seconds >= took_at_least
        assert busy_seconds >= 0
        return PAUSE_SECONDS

    monkeypatch.setattr(dispatcher, "grant", counted)
    monkeypatch.setattr(dispatcher, "pause_after", pause_after)
    for name in ("POLL_SECONDS", "DEAF_POLL_SECONDS"):
        monkeypatch.setattr(lookout, name, NEVER_SECONDS)
    return counts


@pytest.fixture
async def listener(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Hears what brokers say that start from now on."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("LISTEN reprise_hint")
        yield connection


@pytest.fixture
async def client(
    statements: list[int],
    listener: psycopg.AsyncConnection,
    channel: grpc.aio.Channel,
    move_timers: MoveTimers,
) -> AsyncIterator[Client]:
    """A client of a broker that has greeted the others: until then it looks everywhere."""
    assert [notice async for notice in listener.notifies(timeout=PATIENCE_SECONDS, stop_after=1)]
    yield Client(channel)
    move_timers(PAUSE_SECONDS)  # it does not stop before a pause is over


async def test_streams_that_come_meanwhile_share_the_next_statement(
    statements: list[int], client: Client, move_timers: MoveTimers
) -> None:
    for queue in ("a", "b", "c", "d"):
        await client.enqueue(queue=queue)
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(client.stream(1, queues=["a"]))
        await first.leases(1)
        later = []
        for queue in ("b", "c", "d"):
            later.append(await opened.enter_async_context(client.stream(1, queues=[queue])))
            await settled(client)  # the broker has heard of the stream
            assert statements == [1]
            move_timers(PAUSE_SECONDS / 3)

        for stream in later:
            await stream.leases(1)
    assert statements == [1, 3]


async def test_a_job_that_can_be_taken_at_once_does_not_wait_for_it(
    statements: list[int], client: Client
) -> None:
    async with waiting(client, CREDITS) as stream:
        assert statements == [1]

        job_id = await client.enqueue()

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]
    assert statements == [1]


async def test_a_stream_that_comes_meanwhile_is_served_in_the_order_of_its_queues(
    statements: list[int], client: Client, move_timers: MoveTimers
) -> None:
    for queue in ("bulk", "bulk", "left-over"):
        await client.enqueue(queue=queue)
    urgent = await client.enqueue(queue="urgent")
    async with client.stream(1, queues=["bulk"]) as holder, client.stream(0, queues=["left-over"]) as waiter:
        await holder.leases(1)  # one more is known to be there
        await waiter.ask(2)
        await settled(client)
        move_timers(PAUSE_SECONDS)
        await waiter.leases(1)

        async with client.stream(1, queues=["urgent", "bulk"]) as stream:
            await settled(client)
            assert statements == [1, 1]
            move_timers(PAUSE_SECONDS)

            (lease,) = await stream.leases(1)

    assert lease.job_id == urgent
