"""Lease statements of a busy broker that are small keep some time between them, so that the next one is larger."""

import asyncio
from typing import Any

import pytest

from broker.dispatcher import dispatcher, lookout
from broker.store.grant import grant
from tests.contract.client import Client
from tests.contract.waiting import settled, waiting

PAUSE_SECONDS = 0.3
NEVER_SECONDS = 3600.0


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """When each lease statement began and ended, on the loop's clock. The next one waits for PAUSE_SECONDS, and nobody looks unasked."""
    spans: list[tuple[float, float]] = []

    async def timed(*arguments: Any) -> Any:
        began_at = asyncio.get_running_loop().time()
        granted = await grant(*arguments)
        spans.append((began_at, asyncio.get_running_loop().time()))
        return granted

    def pause_after(*, slots: int, most: int, took_seconds: float, busy_seconds: float) -> float:
        assert 0 < slots <= most
        assert took_seconds >= spans[-1][1] - spans[-1][0]
        assert busy_seconds >= 0
        return PAUSE_SECONDS

    monkeypatch.setattr(dispatcher, "grant", timed)
    monkeypatch.setattr(dispatcher, "pause_after", pause_after)
    for name in ("POLL_SECONDS", "DEAF_POLL_SECONDS"):
        monkeypatch.setattr(lookout, name, NEVER_SECONDS)
    return spans


async def test_the_next_statement_waits(statements: list[tuple[float, float]], client: Client) -> None:
    for queue in ("a", "b"):
        await client.enqueue(queue=queue)
    async with client.stream(1, queues=["a"]) as first:
        await first.leases(1)
        async with client.stream(1, queues=["b"]) as second:
            await second.leases(1)

    (_, ended_at), (began_at, _) = statements[-2:]
    assert began_at >= ended_at + PAUSE_SECONDS


async def test_a_job_that_can_be_taken_at_once_does_not_wait_for_it(
    statements: list[tuple[float, float]], client: Client
) -> None:
    async with waiting(client, 1) as stream:
        await settled(client)
        await client.enqueue(queue="left-over")
        async with client.stream(1, queues=["left-over"]) as later:
            await later.leases(1)
            so_far = len(statements)

            job_id = await client.enqueue()

            assert [lease.job_id for lease in await stream.leases(1)] == [job_id]
            assert len(statements) == so_far


async def test_a_stream_that_comes_meanwhile_is_served_in_the_order_of_its_queues(
    statements: list[tuple[float, float]], client: Client
) -> None:
    for queue in ("bulk", "bulk", "other"):
        await client.enqueue(queue=queue)
    urgent = await client.enqueue(queue="urgent")
    async with client.stream(1, queues=["bulk"]) as holder, client.stream(2, queues=["other"]) as waiter:
        await holder.leases(1)  # one more is known to be there
        await waiter.leases(1)

        async with client.stream(1, queues=["urgent", "bulk"]) as stream:
            (lease,) = await stream.leases(1)

    assert lease.job_id == urgent
