"""A transaction that the database breaks off leaves nothing behind, neither in the database nor in the broker's memory."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from tests.contract.client import OK, RETRY, Refusal
from tests.contract.playbooks.catalog import IN_A_ROW, RETRIED
from tests.contract.playbooks.locking import cut_connections_locked_out, locked
from tests.contract.playbooks.run import Starter
from tests.contract.tables import Tables


async def refused_when_its_connection_is_cut(tables: Tables, call: Awaitable[Any]) -> Refusal:
    """The refusal of a call whose connection is cut while it waits for a lock."""
    waiting = asyncio.ensure_future(call)
    await cut_connections_locked_out(tables)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await waiting
    return Refusal(error.value)


async def test_start_that_was_cut_off_left_nothing_and_works_when_repeated(
    start: Starter, tables: Tables
) -> None:
    await start.playbooks.register(RETRIED)
    async with locked(tables, "execution_step"):
        refusal = await refused_when_its_connection_is_cut(tables, start.playbooks.start(key="k"))
    assert (refusal.code, refusal.retry_after is not None) == ("UNAVAILABLE", True)
    assert await tables.rows("SELECT execution_id FROM noetl.execution") == []

    run = await start.again()

    assert (await run.fail("task")).verdict == RETRY
    assert await run.standing("task") == "retry 1/3"


async def test_complete_that_was_cut_off_while_advancing_works_when_repeated(
    start: Starter, tables: Tables
) -> None:
    run = await start(IN_A_ROW.replace("next: [end]", "next: [end], retry: 7, queue: another"))
    lease = await run.lease("first")
    async with locked(tables, "execution_step"):
        refusal = await refused_when_its_connection_is_cut(tables, run.client.complete(lease.lease_token))
    assert refusal.code == "UNAVAILABLE"
    assert await run.steps() == ["first leased 1/1"]

    assert await run.client.complete(lease.lease_token) == OK

    second = await run.lease("second", queues=["another"])
    assert (await run.client.fail(second.lease_token)).decision.verdict == RETRY
    assert await run.steps() == ["first done 1/1", "second retry 1/7"]
    queues = await tables.rows("SELECT name FROM noetl.queue_name ORDER BY name")
    assert queues == [("another",), ("default",)]
