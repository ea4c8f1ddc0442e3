"""What Enqueue takes, and where it puts it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from tests.contract.client import Client, new_job, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock


def instant(when: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(when)
    return message


def struct(**members: Any) -> Struct:
    message = Struct()
    message.update(members)
    return message


async def test_ids_come_in_the_order_of_the_jobs_and_all_are_created(client: Client, tables: Tables) -> None:
    enqueued = await client.enqueue_all(*(new_job(kind=f"kind-{number}") for number in range(1000)))

    kinds = await tables.rows("SELECT kind FROM noetl.queue ORDER BY queue_id")
    assert [job.job_id for job in enqueued] == sorted(job.job_id for job in enqueued)
    assert [kind for (kind,) in kinds] == [f"kind-{number}" for number in range(1000)]
    assert all(job.created for job in enqueued)


async def test_one_bad_job_refuses_the_whole_call(client: Client, tables: Tables) -> None:
    with pytest.raises(grpc.RpcError):
        await client.enqueue_all(new_job(), new_job(queue="no spaces"), new_job())

    assert await tables.value("SELECT count(*) FROM noetl.job") == 0
    assert await tables.value("SELECT count(*) FROM noetl.event") == 0


async def test_a_new_job_is_queued_and_due_since_it_was_made(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=4))

    status, attempts, max_attempts, available_at = await tables.job(job_id)

    assert (status, attempts, max_attempts) == ("queued", 0, 4)
    assert available_at is not None
    assert available_at <= await tables.now() + timedelta(milliseconds=1)


async def test_the_defaults_are_those_of_the_contract(client: Client) -> None:
    await client.enqueue()

    lease = await client.lease()

    assert (lease.queue, lease.input_json, lease.max_attempts) == ("default", "{}", 1)
    assert not lease.HasField("attempt_timeout")
    assert (lease.dependency, lease.traceparent, dict(lease.labels), lease.execution_id) == ("", "", {}, 0)


async def test_input_as_text_arrives_as_it_was_written(client: Client) -> None:
    text = ' {"b": 1.10, "a": [1e2, 12345678901234567890, "\\u00e4ä😀"], "A": {}} '
    await client.enqueue(input_json=text)

    assert (await client.lease()).input_json == text


async def test_input_by_hand_arrives_as_json_with_integers_as_integers(client: Client) -> None:
    await client.enqueue(
        input=struct(n=3, x=1.5, big=2**53 - 1, s="ä", none=None, yes=True, deep={"l": [1, {}]})
    )

    lease = await client.lease()

    assert '"n":3' in lease.input_json
    assert '"big":9007199254740991' in lease.input_json
    assert '"deep":{"l":[1,{}]}' in lease.input_json
    assert '"s":"ä"' in lease.input_json


@pytest.mark.parametrize("field", ["delay", "run_at"])
async def test_a_scheduled_job_waits_for_its_time_as_queued(
    client: Client, tables: Tables, move_clock: MoveClock, field: str
) -> None:
    run_at = await tables.now() + timedelta(hours=1)
    start = {"delay": 3600} if field == "delay" else {"run_at": instant(run_at)}

    job_id = await client.enqueue(**start)

    status, attempts, _, available_at = await tables.job(job_id)
    assert (status, attempts) == ("queued", 0)
    assert available_at is not None
    assert abs(available_at - run_at) < timedelta(seconds=5)
    await move_clock(3540)
    assert await client.poll() == []
    await move_clock(61)
    assert (await client.lease()).job_id == job_id


@pytest.mark.parametrize(
    "start", [{"delay": 0}, {"run_at": instant(datetime(2001, 1, 1, tzinfo=UTC))}, {"run_at": Timestamp()}]
)
async def test_a_time_that_has_come_already_is_at_once(client: Client, start: dict[str, object]) -> None:
    job_id = await client.enqueue(**start)

    assert [lease.job_id for lease in await client.poll()] == [job_id]


async def test_scheduled_jobs_come_in_the_order_of_their_times(client: Client, move_clock: MoveClock) -> None:
    later = await client.enqueue(delay=20)
    sooner = await client.enqueue(delay=10)

    await move_clock(30)

    assert [(await client.lease()).job_id for _ in range(2)] == [sooner, later]


@pytest.mark.parametrize(
    "fields",
    [
        {"queue": "a" * 128, "kind": "Az09._-"},
        {"priority": 100},
        {"priority": -100},
        {"labels": {f"label-{number}": "v" * 63 for number in range(16)}},
        {"labels": {"k" * 63: ""}},
        {"idempotency_key": "ä" * 200},
        {"retry": retry(max_attempts=1000, initial_delay=30 * 86_400, max_delay=30 * 86_400, backoff_multiplier=100)},
        {"retry": retry(max_attempts=1, initial_delay=0, max_delay=0, backoff_multiplier=1)},
        {"delay": 3650 * 86_400},
        {"run_at": instant(datetime(9999, 12, 31, tzinfo=UTC))},
        {"attempt_timeout": 0.001},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        {"input_json": '{"a":' + "[" * 198 + "]" * 198 + "}"},
    ],
    ids=str,
)  # fmt: skip
async def test_every_field_is_taken_up_to_its_bounds(client: Client, fields: dict[str, object]) -> None:
    assert await client.enqueue(**fields) > 0


async def test_the_job_keeps_what_it_was_made_with(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(queue="mail", kind="send", priority=7)

    (row,) = await tables.rows(
        "SELECT queue, kind, priority, execution_id, node_name, input FROM noetl.queue WHERE queue_id = %s",
        job_id,
    )
    assert row == ("mail", "send", 7, None, None, {})


async def test_a_day_for_which_nothing_was_prepared_costs_no_call(
    client: Client, move_clock: MoveClock
) -> None:
    await move_clock(30 * 86_400)

    job_id = await client.enqueue()

    assert (await client.lease()).job_id == job_id


async def test_such_a_day_costs_no_call_either_while_another_broker_prepares_it(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    waits: set[datetime] = set()

    async def tried_again() -> bool:
        found = await tables.rows(
            "SELECT query_start FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        )
        waits.update(began_at for (began_at,) in found)
        return len(waits) >= 3

    async with await psycopg.AsyncConnection.connect(tables.database_url) as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('noetl.ensure_partitions'))")
        await move_clock(30 * 86_400)
        enqueuing = asyncio.create_task(client.enqueue())
        await eventually(tried_again)

    assert await enqueuing > 0
