"""Who gets which job first: queues in a stream's order, priority within each, then first in first out; streams by turns."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.contract.client import AT_ONCE, OK, Client, new_job
from tests.contract.tables import Tables
from tests.contract.waiting import eventually, settled


async def test_higher_priority_first_and_then_first_in_first_out(client: Client) -> None:
    wanted = [(5, "a"), (5, "b"), (0, "c"), (0, "d"), (-100, "e")]
    for priority, name in [wanted[4], wanted[2], wanted[0], wanted[3], wanted[1]]:
        await client.enqueue(priority=priority, kind=name)

    leases = await client.poll(10)

    assert [lease.kind for lease in leases] == [name for _, name in wanted]


async def test_jobs_of_one_call_keep_their_order(client: Client) -> None:
    enqueued = await client.enqueue_all(*(new_job(kind=f"k{number}") for number in range(50)))

    leases = await client.poll(50)

    assert [lease.job_id for lease in leases] == [job.job_id for job in enqueued]


async def test_queues_are_served_strictly_in_the_order_of_the_stream(client: Client) -> None:
    await client.enqueue(queue="low", priority=100)
    await client.enqueue(queue="high", priority=-100)
    await client.enqueue(queue="other")

    leases = await client.poll(10, queues=["high", "low"])

    assert [lease.queue for lease in leases] == ["high", "low"]


async def test_a_stream_that_names_no_queue_takes_from_default(client: Client) -> None:
    await client.enqueue(queue="other")
    job_id = await client.enqueue()

    assert [lease.job_id for lease in await client.poll(10)] == [job_id]


async def test_a_job_that_comes_back_stands_behind_those_that_waited(client: Client) -> None:
    first = await client.enqueue(retry=AT_ONCE)
    token = (await client.lease()).lease_token
    second = await client.enqueue()

    await client.fail(token)

    assert [lease.job_id for lease in await client.poll(10)] == [second, first]


async def test_a_released_job_stands_behind_those_that_waited(client: Client) -> None:
    first = await client.enqueue()
    token = (await client.lease()).lease_token
    second = await client.enqueue()

    await client.release(token)

    assert [lease.job_id for lease in await client.poll(10)] == [second, first]


async def test_a_priority_that_no_one_has_used_so_far_is_found(client: Client) -> None:
    async with client.stream(2) as stream:
        await client.enqueue(priority=3)
        await stream.leases(1)

        await client.enqueue(priority=-7)

        assert (await stream.leases(1))[0].kind == "task"


async def test_streams_at_one_queue_share_it_by_turns(client: Client) -> None:
    async with AsyncExitStack() as opened:
        streams = []
        for number in range(4):
            # A job of its own shows that the broker has heard the stream.
            own = f"own-{number}"
            queues = ["shared", own]
            stream = await opened.enter_async_context(
                client.stream(100, queues=queues, worker_id=f"worker-{number}")
            )
            await client.enqueue(queue=own)
            await stream.leases(1)
            streams.append(stream)

        await client.enqueue_all(*(new_job(queue="shared") for _ in range(40)))

        shares = [await stream.leases(10) for stream in streams]
        assert [len(share) for share in shares] == [10, 10, 10, 10]


@pytest.mark.parametrize("queue", ["shared", "own"])
async def test_no_stream_with_credits_waits_while_another_gets_more_than_a_thousand(
    client: Client, tables: Tables, queue: str
) -> None:
    async with (
        client.stream(10, queues=[queue], worker_id="modest") as modest,
        client.stream(0, queues=["shared"], worker_id="greedy") as greedy,
    ):
        held = []
        for _ in range(10):
            # One by one: so the broker learns that bodies are small, and that many fit into a statement.
            await client.enqueue(queue=queue)
            held += await modest.leases(1)
        for _ in range(4):
            await client.enqueue_all(*(new_job(queue="shared") for _ in range(1000)))
        await client.enqueue_all(*(new_job(queue=queue) for _ in range(10)))
        for lease in held:
            assert await client.complete(lease.lease_token) == OK

        async with tables.leasing_held_back():
            await greedy.ask(10_000)
            await eventually(tables.somebody_waits_for_a_lock)  # by now a statement that gives to nobody else
            await modest.ask(10)
            await settled(client)  # the broker has heard of these credits
        await modest.leases(10)

        workers = await tables.rows("SELECT worker_id FROM noetl.lease ORDER BY lease_id")
        assert workers.index(("modest",)) <= 1000


async def test_a_poll_on_an_empty_queue_ends_while_another_stream_is_kept_busy(
    client: Client, tables: Tables
) -> None:
    async with client.stream(10_000, queues=["busy"]) as busy:
        feeding = asyncio.create_task(_feed(client))
        await busy.next()

        assert await client.poll(queues=["empty"]) == []

        assert not feeding.done()
        feeding.cancel()


async def test_what_another_broker_puts_in_is_found_while_this_one_is_never_at_rest(
    client: Client, tables: Tables
) -> None:
    async with client.stream(10_000, queues=["busy"]) as busy, client.stream(1, queues=["quiet"]) as quiet:
        feeding = asyncio.create_task(_feed(client))
        await busy.next()

        # What a broker puts in that this one hears nothing of.
        job_id = await client.enqueue(queue="elsewhere")
        await tables.rows("UPDATE noetl.job SET queue = 'quiet' WHERE job_id = %s", job_id)
        await tables.rows("UPDATE noetl.ready SET queue = 'quiet' WHERE job_id = %s", job_id)

        assert [lease.job_id for lease in await quiet.leases(1)] == [job_id]
        assert not feeding.done()
        feeding.cancel()


async def _feed(client: Client) -> None:
    """A job after the other, for ever, so that the broker's leaser has something to do all the time."""
    while True:
        await client.enqueue_all(*(new_job(queue="busy") for _ in range(2)))
