"""Extend is the heartbeat: it counts from now, ends at the attempt's timeout, and brings back what a worker must know."""

from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Value
from reprise.v1 import broker_service_pb2 as pb

from tests.contract.client import AT_ONCE, CANCELLED, INVALID, LOST, OK, Client, Refusal, new_job
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock


async def test_an_extension_counts_from_now(client: Client, tables: Tables, move_clock: MoveClock) -> None:
    await client.enqueue()
    token = (await client.lease(lease_seconds=30)).lease_token
    await move_clock(20)

    extended = await client.extend(token, lease_seconds=100)

    assert extended.outcome == OK
    assert extended.lease_duration.ToTimedelta() == timedelta(seconds=100)
    left = extended.lease_expires_at.ToDatetime(UTC) - await tables.now()
    assert timedelta(seconds=95) < left <= timedelta(seconds=100)


async def test_by_default_a_lease_is_prolonged_by_what_was_first_asked_for(client: Client) -> None:
    await client.enqueue()
    token = (await client.lease(lease_seconds=77)).lease_token
    await client.extend(token, lease_seconds=5)

    extended = await client.extend(token)

    assert extended.lease_duration.ToTimedelta() == timedelta(seconds=77)


async def test_an_extension_may_also_shorten(client: Client, tables: Tables, move_clock: MoveClock) -> None:
    job_id = await client.enqueue(retry=AT_ONCE)
    token = (await client.lease(lease_seconds=3600)).lease_token
    await client.extend(token, lease_seconds=10)

    await move_clock(10)

    assert (await client.lease()).job_id == job_id


async def test_no_lease_is_prolonged_beyond_what_its_attempt_may_take(
    client: Client, move_clock: MoveClock
) -> None:
    await client.enqueue(attempt_timeout=60)
    lease = await client.lease(lease_seconds=20)
    await move_clock(15)

    near = await client.extend(lease.lease_token, lease_seconds=30)
    capped = await client.extend(lease.lease_token, lease_seconds=3600)

    assert near.lease_duration.ToTimedelta() == timedelta(seconds=30)
    assert timedelta(seconds=40) < capped.lease_duration.ToTimedelta() <= timedelta(seconds=45)
    granted_at = lease.lease_expires_at.ToDatetime() - timedelta(seconds=20)
    assert capped.lease_expires_at.ToDatetime() == granted_at + timedelta(seconds=60)


async def test_a_heartbeat_costs_no_event(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()
    await client.extend((await client.lease()).lease_token)

    assert await tables.story(job_id) == ["job_enqueued", "action_started"]


async def test_many_extensions_are_answered_in_their_order(client: Client) -> None:
    await client.enqueue_all(new_job(), new_job())
    first, second = await client.poll(2)
    await client.complete(first.lease_token)

    response = await client.stub.Extend(
        pb.ExtendRequest(
            extensions=[
                pb.Extension(lease_token="unknown"),
                pb.Extension(lease_token=second.lease_token),
                pb.Extension(lease_token=first.lease_token),
                pb.Extension(lease_token=second.lease_token, checkpoint_json="{"),
                pb.Extension(lease_token=second.lease_token),
            ]
        )
    )

    assert [result.outcome for result in response.results] == [LOST, OK, LOST, INVALID, OK]
    assert response.results[3].error.startswith("extensions[3].checkpoint_json: ")
    assert not response.results[0].HasField("lease_expires_at")


@pytest.mark.parametrize(
    ("saved", "delivered"),
    [
        ({"checkpoint_json": ' {"page": 1e2} '}, ' {"page": 1e2} '),
        ({"checkpoint_json": "null"}, "null"),
        ({"checkpoint": Value(list_value=ListValue(values=[Value(number_value=3)]))}, "[3]"),
        ({"checkpoint": Value()}, "null"),
    ],
)
async def test_any_json_is_kept_for_the_next_attempt(
    client: Client, saved: dict[str, Any], delivered: str
) -> None:
    await client.enqueue(retry=AT_ONCE)
    token = (await client.lease()).lease_token
    await client.extend(token, **saved)
    await client.fail(token)

    assert (await client.lease()).checkpoint_json == delivered


@pytest.mark.parametrize(
    "saved",
    [
        {"checkpoint_json": ""},
        {"checkpoint_json": '"\\u0000"'},
        {"checkpoint_json": '"' + "x" * 65_536 + '"'},
        {"checkpoint": Value(number_value=float("nan"))},
        {"checkpoint": Value(string_value="\0")},
    ],
    ids=lambda saved: str(saved)[:40],
)
async def test_a_checkpoint_that_cannot_be_kept_leaves_the_lease_as_it_was(
    client: Client, tables: Tables, saved: dict[str, Any]
) -> None:
    await client.enqueue()
    lease = await client.lease(lease_seconds=30)

    extended = await client.extend(lease.lease_token, lease_seconds=3600, **saved)

    assert extended.outcome == INVALID
    expires_at = await tables.value("SELECT expires_at FROM noetl.lease")
    assert expires_at == lease.lease_expires_at.ToDatetime(UTC)


async def test_the_last_checkpoint_of_several_is_kept(client: Client) -> None:
    await client.enqueue(retry=AT_ONCE)
    token = (await client.lease()).lease_token
    await client.stub.Extend(
        pb.ExtendRequest(
            extensions=[pb.Extension(lease_token=token, checkpoint_json=text) for text in ("1", "2", "3")]
        )
    )
    await client.fail(token)

    assert (await client.lease()).checkpoint_json == "3"


async def test_the_worker_of_a_cancelled_job_is_told_to_stop_and_still_holds_its_lease(
    client: Client, tables: Tables
) -> None:
    await client.enqueue()
    token = (await client.lease()).lease_token
    await tables.rows("INSERT INTO noetl.cancellation SELECT lease_id, 'by hand' FROM noetl.lease")

    extended = await client.extend(token, lease_seconds=50)

    assert extended.outcome == CANCELLED
    assert extended.lease_duration.ToTimedelta() == timedelta(seconds=50)
    assert await client.complete(token) == OK


@pytest.mark.parametrize(
    "duration", [Duration(), Duration(seconds=3601), Duration(seconds=-1), Duration(seconds=2**62)]
)
async def test_a_lease_lasts_1_second_to_1_hour(client: Client, duration: Duration) -> None:
    with pytest.raises(grpc.RpcError) as error:
        await client.stub.Extend(
            pb.ExtendRequest(extensions=[pb.Extension(lease_token="x")], lease_duration=duration)
        )

    assert Refusal(error.value).fields == ["lease_duration"]
