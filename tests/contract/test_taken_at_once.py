"""A job for which a worker waits is leased in the transaction that puts it in or finds it due, and is otherwise a job like any other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from tests.contract.client import Client, new_job, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually, settled, waiting
from tests.fixtures_database import MoveClock

# Now and then the broker looks into the queue just then, and a job waits for that look: of so many, some are taken at once.
TRIES = 5
HOUR = 3600
RETRY = retry(max_attempts=2, initial_delay=HOUR, max_delay=HOUR)


@asynccontextmanager
async def due_and_held_back(tables: Tables, move_clock: MoveClock, table: str) -> AsyncIterator[None]:
    """An hour has passed, and the sweep that finds what is due by now waits to write to a table."""
    async with tables.held_back(table):
        await move_clock(HOUR)
        await eventually(tables.somebody_waits_for_a_lock)
        yield


async def test_job_and_lease_are_of_one_transaction(client: Client, tables: Tables) -> None:
    async with waiting(client, TRIES) as stream:
        for _ in range(TRIES):
            await settled(client)  # the broker has nothing left to look for by now
            await client.enqueue()
            await stream.leases(1)
        transactions = await tables.rows(
            "SELECT j.xmin::text, l.xmin::text FROM noetl.job j JOIN noetl.lease l USING (job_id) WHERE j.kind <> 'first'"
        )

    assert len(transactions) == TRIES
    assert any(len(set(of_one_job)) == 1 for of_one_job in transactions)


async def test_the_lease_says_all_that_the_job_carries(client: Client) -> None:
    async with waiting(client, 1) as stream:
        job_id = await client.enqueue(
            kind="k",
            input_json='{"a":1}',
            labels={"team": "x"},
            dependency="mail",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            priority=7,
            attempt_timeout=20,
            retry=retry(max_attempts=3),
        )
        (lease,) = await stream.leases(1)

    assert (lease.job_id, lease.queue, lease.kind, lease.input_json) == (job_id, "default", "k", '{"a":1}')
    assert (lease.attempt, lease.max_attempts, dict(lease.labels)) == (1, 3, {"team": "x"})
    assert (lease.dependency, lease.traceparent[:2]) == ("mail", "00")
    assert lease.attempt_timeout.ToTimedelta() == timedelta(seconds=20)
    assert lease.lease_duration.ToTimedelta() == timedelta(seconds=20), "no lease outlives its attempt"


async def test_its_story_is_that_of_every_job(client: Client, tables: Tables) -> None:
    async with waiting(client, 1) as stream:
        job_id = await client.enqueue()
        (lease,) = await stream.leases(1)
        assert await tables.standing(job_id) == "leased 1/1"
        await client.complete(lease.lease_token)

    events = await tables.events(job_id)
    assert [event.event_type for event in events] == ["job_enqueued", "action_started", "action_completed"]
    assert events[1].result["worker_id"] == "worker-1"
    assert await tables.standing(job_id) == "done 1/1"


async def test_what_goes_beyond_the_credits_waits(client: Client, tables: Tables) -> None:
    async with waiting(client, 2) as stream:
        ids = [job.job_id for job in await client.enqueue_all(*(new_job() for _ in range(5)))]

        assert [lease.job_id for lease in await stream.leases(2)] == ids[:2]
        assert [await tables.standing(job_id) for job_id in ids[2:]] == ["queued 0/1"] * 3

        await stream.ask(3)
        assert [lease.job_id for lease in await stream.leases(3)] == ids[2:]


async def test_a_key_that_was_used_leases_nothing_and_costs_no_credit(client: Client, tables: Tables) -> None:
    async with waiting(client, 2) as stream:
        job_id = await client.enqueue(idempotency_key="once")
        await stream.leases(1)
        assert await client.enqueue(idempotency_key="once") == job_id
        assert await tables.value("SELECT count(*) FROM noetl.lease WHERE job_id = %s", job_id) == 1

        other = await client.enqueue()
        assert [lease.job_id for lease in await stream.leases(1)] == [other]


async def test_a_job_whose_stream_breaks_before_it_is_there_goes_to_the_next(
    client: Client, tables: Tables
) -> None:
    async with waiting(client, 1) as breaking:
        async with tables.leasing_held_back():
            enqueuing = asyncio.create_task(client.enqueue())
            await eventually(tables.somebody_waits_for_a_lock)
            breaking.cancel()
            await settled(client)  # the broker has heard of the break by now
        job_id = await enqueuing

        lease = await client.lease()

    assert (lease.job_id, lease.attempt) == (job_id, 1)


async def test_a_stream_that_half_closes_meanwhile_still_gets_it(client: Client, tables: Tables) -> None:
    async with waiting(client, 1) as stream:
        async with tables.leasing_held_back():
            enqueuing = asyncio.create_task(client.enqueue())
            await eventually(tables.somebody_waits_for_a_lock)
            await stream.half_close()
            await settled(client)
        job_id = await enqueuing

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_a_retry_that_is_due_is_leased_in_the_transaction_that_finds_it(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    delayed = []
    async with waiting(client, 2 * TRIES) as stream:
        for _ in range(TRIES):
            job_id = await client.enqueue(retry=RETRY)
            (lease,) = await stream.leases(1)
            await client.fail(lease.lease_token)
            async with due_and_held_back(tables, move_clock, "lease"):
                delayed.append(
                    await tables.value("SELECT count(*) FROM noetl.delayed WHERE job_id = %s", job_id)
                )
            (second,) = await stream.leases(1)
            assert (second.job_id, second.attempt, second.HasField("last_failure")) == (job_id, 2, True)
            await client.complete(second.lease_token)

    assert 1 in delayed, "what takes it out of its delay waits with the lease"


async def test_a_due_job_whose_stream_breaks_before_it_is_there_goes_to_the_next(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    async with waiting(client, 1) as breaking:
        job_id = await client.enqueue(delay=HOUR)
        async with due_and_held_back(tables, move_clock, "lease"):
            breaking.cancel()
            await settled(client)  # the broker has heard of the break by now

        lease = await client.lease()

    assert (lease.job_id, lease.attempt) == (job_id, 1)


async def test_a_stream_that_half_closes_while_a_job_falls_due_still_gets_it(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    async with waiting(client, 1) as stream:
        job_id = await client.enqueue(delay=HOUR)
        async with due_and_held_back(tables, move_clock, "lease"):
            await stream.half_close()
            await settled(client)

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_a_due_job_that_cannot_be_leased_with_its_sweep_is_leased_later_by_the_same_credit(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    async with waiting(client, 1) as stream:
        job_id = await client.enqueue(delay=HOUR)
        async with due_and_held_back(tables, move_clock, "lease"):
            await tables.rows(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            await move_clock(1)  # wakes the sweep
            await eventually(lambda: tables.is_available(job_id))

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_a_job_that_comes_while_all_credits_are_kept_for_what_falls_due_is_leased_by_one_that_was_not_used(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    async with waiting(client, 1) as stream:
        await client.enqueue(delay=HOUR, queue="nobody")
        async with due_and_held_back(tables, move_clock, "delayed"):
            job_id = await client.enqueue()

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]
