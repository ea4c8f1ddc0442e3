"""The Lease call: credits, receipts, polls, notices, and what becomes of leases when a stream ends or breaks."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as pb

from broker.service import lease_stream
from tests.contract.client import AT_ONCE, LOST, OK, Client, new_job, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

# Credits


async def test_a_stream_never_gets_more_leases_than_it_gave_credits_for(
    client: Client, tables: Tables
) -> None:
    await client.enqueue_all(*(new_job() for _ in range(20)))
    async with client.stream(3) as stream:
        await stream.leases(3)
        await stream.ask(4)
        await stream.leases(4)

        assert await stream.rest() == []
        assert await tables.value("SELECT count(*) FROM noetl.lease") == 7


async def test_credits_add_up_over_messages(client: Client) -> None:
    async with client.stream(1) as stream:
        await stream.ask(2)
        await stream.ask(2)

        await client.enqueue_all(*(new_job() for _ in range(9)))

        assert len(await stream.leases(5)) == 5
        assert await stream.rest() == []


async def test_a_lease_that_ends_gives_no_credit_back(client: Client) -> None:
    await client.enqueue_all(new_job(), new_job())
    async with client.stream(1) as stream:
        (lease,) = await stream.leases(1)

        await client.complete(lease.lease_token)

        assert await stream.rest() == []


async def test_a_stream_without_credits_gets_nothing(client: Client) -> None:
    await client.enqueue()
    async with client.stream() as stream:
        assert await stream.rest() == []


@pytest.mark.parametrize("credit", [-1, 10_001])
async def test_credits_out_of_range_end_the_stream_by_name(client: Client, credit: int) -> None:
    async with client.stream(credit) as stream:
        error = await stream.end()

    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "credits" in (error.details() or "")


async def test_unused_credits_are_at_most_ten_thousand_together(client: Client) -> None:
    async with client.stream(9_999) as stream:
        await stream.ask(1)
        await stream.ask(1)

        assert (await stream.end()).code() == grpc.StatusCode.INVALID_ARGUMENT


# Delivery


async def test_a_job_is_delivered_to_a_stream_that_waits_with_all_that_its_worker_needs(
    client: Client,
) -> None:
    async with client.stream(1, lease_seconds=45) as stream:
        job_id = await client.enqueue(
            kind="send",
            queue="default",
            input_json='{"to": "ä", "n": 12345678901234567890}',
            retry=retry(max_attempts=7),
            labels={"team": "a"},
            dependency="mail-api",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            attempt_timeout=600,
        )

        (lease,) = await stream.leases(1)

    assert (lease.job_id, lease.queue, lease.kind, lease.attempt, lease.max_attempts) == (
        job_id, "default", "send", 1, 7,
    )  # fmt: skip
    assert lease.input_json == '{"to": "ä", "n": 12345678901234567890}'
    assert dict(lease.labels) == {"team": "a"}
    assert lease.dependency == "mail-api"
    assert lease.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert lease.attempt_timeout.ToTimedelta() == timedelta(minutes=10)
    assert lease.lease_duration.ToTimedelta() == timedelta(seconds=45)
    lives = lease.lease_expires_at.ToDatetime() - lease.created_at.ToDatetime()
    assert timedelta(seconds=44.99) < lives < timedelta(seconds=55)
    assert not lease.HasField("last_failure")
    assert lease.checkpoint_json == ""


async def test_a_later_attempt_gets_the_failure_before_it_and_what_was_saved(client: Client) -> None:
    await client.enqueue(retry=AT_ONCE)
    token = (await client.lease()).lease_token
    await client.extend(token, checkpoint_json='{"page": 3}')
    await client.fail(token, "no route", type="http.503", status_code=503, result_json='{"n": 1e15}')

    lease = await client.lease()

    assert lease.attempt == 2
    assert (lease.last_failure.message, lease.last_failure.type, lease.last_failure.status_code) == (
        "no route", "http.503", 503,
    )  # fmt: skip
    assert lease.last_failure.result_json == '{"n": 1e15}'
    assert lease.checkpoint_json == '{"page": 3}'


async def test_the_failure_that_a_lease_brings_is_that_of_the_attempt_just_before(client: Client) -> None:
    await client.enqueue(retry=AT_ONCE)
    await client.fail((await client.lease()).lease_token, "first")
    await client.fail((await client.lease()).lease_token, "second")

    assert (await client.lease()).last_failure.message == "second"


async def test_what_an_attempt_saved_stays_until_another_saves_again(client: Client) -> None:
    await client.enqueue(retry=AT_ONCE)
    first = (await client.lease()).lease_token
    await client.extend(first, checkpoint_json='"one"')
    await client.extend(first)
    await client.fail(first)
    second = await client.lease()
    await client.fail(second.lease_token)

    third = await client.lease()

    assert (second.checkpoint_json, third.checkpoint_json) == ('"one"', '"one"')


async def test_each_grant_has_a_token_of_its_own(client: Client) -> None:
    await client.enqueue(retry=AT_ONCE)
    first = (await client.lease()).lease_token
    await client.fail(first)

    second = (await client.lease()).lease_token

    assert first != second
    assert len(first) <= 64


async def test_the_worker_of_a_stream_that_gives_no_name_is_its_address(
    client: Client, tables: Tables
) -> None:
    job_id = await client.enqueue()

    await client.lease(worker_id="")

    (started,) = await tables.events(job_id, "action_started")
    assert started.worker_id is not None
    assert started.worker_id.startswith("ipv4:127.0.0.1:")


async def test_a_stream_at_rest_shows_signs_of_life(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_stream, "SIGN_OF_LIFE_SECONDS", 0.02)
    async with client.stream(1) as stream:
        assert [await stream.next(), await stream.next()] == [pb.LeaseResponse(), pb.LeaseResponse()]


# A client that closes its side polls


async def test_a_poll_ends_when_its_credits_are_used_up(client: Client) -> None:
    await client.enqueue_all(*(new_job() for _ in range(5)))

    assert len(await client.poll(2, wait=60)) == 2


async def test_a_poll_ends_when_something_came_and_no_more_is_to_be_had(client: Client) -> None:
    await client.enqueue_all(*(new_job() for _ in range(5)))

    assert len(await client.poll(100, wait=60)) == 5


async def test_a_poll_of_an_empty_queue_ends_at_once_by_default(client: Client) -> None:
    async with asyncio.timeout(5):
        assert await client.poll(100) == []


async def test_a_poll_waits_for_what_comes_meanwhile(client: Client) -> None:
    poll = asyncio.create_task(client.poll(100, wait=60))
    async with client.stream(0) as _:
        pass  # the poll has been heard by now or will be: either way it has to wait

    job_id = await client.enqueue()

    async with asyncio.timeout(10):
        assert [lease.job_id for lease in await poll] == [job_id]


async def test_a_poll_ends_when_nothing_came_for_as_long_as_it_waits(client: Client) -> None:
    started_at = asyncio.get_running_loop().time()

    assert await client.poll(100, wait=0.3) == []

    assert 0.25 < asyncio.get_running_loop().time() - started_at < 5


async def test_a_poll_sees_every_job_that_was_put_in_before_it(client: Client) -> None:
    for number in range(30):
        job_id = await client.enqueue(priority=number % 7)
        assert [lease.job_id for lease in await client.poll(10)] == [job_id]


async def test_what_was_delivered_before_its_client_closed_its_side_counts_as_received(
    client: Client, tables: Tables
) -> None:
    job_id = await client.enqueue()
    async with client.stream(2, wait=60) as stream:
        (lease,) = await stream.leases(1)
        await stream.half_close()
        assert await stream.status() == grpc.StatusCode.OK

    assert await client.complete(lease.lease_token) == OK
    assert await tables.story(job_id) == ["job_enqueued", "action_started", "action_completed"]


async def test_a_poll_by_hand_can_be_completed(client: Client) -> None:
    await client.enqueue()

    (lease,) = await client.poll()

    assert await client.complete(lease.lease_token) == OK


# Breaks


async def test_a_lease_not_received_goes_back_at_once_when_its_stream_breaks(
    client: Client, tables: Tables
) -> None:
    job_id = await client.enqueue(retry=retry())
    async with client.stream(1) as stream:
        await stream.leases(1)

        stream.cancel()

        again = await client.lease()
    assert (again.job_id, again.attempt) == (job_id, 1)
    (released,) = await tables.events(job_id, "lease_released")
    assert released.result["attempt"] == 1
    assert released.result["why"]


async def test_a_received_lease_outlives_its_stream(client: Client, tables: Tables) -> None:
    await client.enqueue_all(new_job(), new_job())
    async with client.stream(2) as stream:
        first, second = await stream.leases(2)
        await stream.ask(received=[first.lease_token])

        stream.cancel()

        await eventually(lambda: _count(tables, "noetl.lease", 1))
    assert await client.complete(first.lease_token) == OK
    assert await client.complete(second.lease_token) == LOST


async def test_an_extended_lease_outlives_its_stream(client: Client, tables: Tables) -> None:
    await client.enqueue_all(new_job(), new_job())
    async with client.stream(2) as stream:
        first, _ = await stream.leases(2)
        await client.extend(first.lease_token)

        stream.cancel()

        await eventually(lambda: _count(tables, "noetl.ready", 1))
    assert await client.complete(first.lease_token) == OK


async def test_receipts_for_leases_of_others_or_of_nobody_do_no_harm(client: Client, tables: Tables) -> None:
    await client.enqueue()
    async with client.stream(1) as stream, client.stream(0) as other:
        (lease,) = await stream.leases(1)
        await other.ask(received=[lease.lease_token, "unknown", ""])
        assert await other.rest() == []

        stream.cancel()

        await eventually(lambda: _count(tables, "noetl.ready", 1))


async def test_the_third_return_in_a_row_is_decided_like_an_expired_lease(
    client: Client, tables: Tables
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=2, initial_delay=1))

    await _break_deliveries(client, 3)

    await eventually(lambda: _stands(tables, job_id, "retry 1/2"))
    (error,) = await tables.events(job_id, "action_error")
    assert error.result["error_type"] == "lease_expired"
    assert len(await tables.events(job_id, "lease_released")) == 2


async def test_a_delivery_that_always_breaks_its_client_ends_dead(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=2, initial_delay=1))
    await _break_deliveries(client, 3)
    await eventually(lambda: _stands(tables, job_id, "retry 1/2"))
    await move_clock(1)

    await _break_deliveries(client, 1)

    await eventually(lambda: _stands(tables, job_id, "dead 2/2"))
    assert await client.poll() == []


async def test_returns_count_only_in_a_row(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()
    for _ in range(2):
        await _break_deliveries(client, 2)
        await client.release((await client.lease()).lease_token)

    await _break_deliveries(client, 2)

    await eventually(lambda: _stands(tables, job_id, "queued 0/1"))


async def test_a_returned_job_stands_behind_those_that_waited(client: Client) -> None:
    first = await client.enqueue()
    async with client.stream(1) as stream:
        await stream.leases(1)
        second = await client.enqueue()

    leases = [await client.lease(), await client.lease()]

    assert [lease.job_id for lease in leases] == [second, first]


async def test_a_stream_that_begins_while_the_last_one_of_its_queue_breaks_is_served(
    client: Client, tables: Tables
) -> None:
    async with client.stream(0, queues=["q"]) as breaking:
        job_id = await client.enqueue(queue="q", priority=5)
        async with tables.leasing_held_back():
            await breaking.ask(1)
            await eventually(tables.somebody_waits_for_a_lock)
            breaking.cancel()
            async with client.stream(0, queues=["other"]) as probe:
                await probe.rest()  # the broker has heard of the break by now
            taking = asyncio.create_task(client.lease(queues=["q"]))
            async with client.stream(0, queues=["other"]) as probe:
                await probe.rest()

        lease = await taking

    assert (lease.job_id, lease.attempt) == (job_id, 1)


# Notices


async def test_the_holder_of_an_expired_lease_is_told_that_it_is_lost(
    client: Client, move_clock: MoveClock
) -> None:
    await client.enqueue()
    async with client.stream(1, lease_seconds=30) as stream:
        (lease,) = await stream.leases(1)

        await move_clock(31)

        notice = await stream.notice()
        assert (notice.lease_token, notice.kind) == (lease.lease_token, pb.LeaseNotice.KIND_LOST)


async def test_nobody_is_told_of_leases_that_ended_well(client: Client, move_clock: MoveClock) -> None:
    await client.enqueue_all(new_job(), new_job())
    async with client.stream(2, lease_seconds=30) as stream:
        done, lost = await stream.leases(2)
        await client.complete(done.lease_token)

        await move_clock(31)

        assert (await stream.notice()).lease_token == lost.lease_token


async def _break_deliveries(client: Client, times: int) -> None:
    for _ in range(times):
        async with client.stream(1) as stream:
            await stream.leases(1)


async def _count(tables: Tables, table: str, count: int) -> bool:
    return bool(await tables.value(f"SELECT count(*) FROM {table}") == count)


async def _stands(tables: Tables, job_id: int, standing: str) -> bool:
    return await tables.standing(job_id) == standing
