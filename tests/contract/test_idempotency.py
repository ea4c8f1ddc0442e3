"""An idempotency key stands for one job: whoever enqueues it how often, in one call or at once at two brokers."""

import asyncio

import grpc
import pytest

from broker.config import BrokerConfig
from broker.maintenance import Maintenance
from broker.server import running
from tests.contract.client import Client, Refusal, new_job, retry
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock


async def test_the_same_again_is_the_first_job(client: Client, tables: Tables) -> None:
    (first,) = await client.enqueue_all(new_job(idempotency_key="k"))
    (second,) = await client.enqueue_all(new_job(idempotency_key="k"))

    assert (first.created, second.created) == (True, False)
    assert first.job_id == second.job_id
    assert await tables.story(first.job_id) == ["job_enqueued"]
    assert await tables.value("SELECT count(*) FROM noetl.job") == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"a": 1, "b": {"c": [1, 2]}}', '{"b":{"c":[1,2]},"a":1.0}'),
        ('{"s": "\\u00e4"}', '{"s": "ä"}'),
        ('{"n": 100}', '{"n": 1e2}'),
    ],
)
async def test_inputs_are_compared_as_json_values(client: Client, first: str, second: str) -> None:
    one = await client.enqueue(idempotency_key="k", input_json=first)

    again, in_one_call = await client.enqueue_all(
        new_job(idempotency_key="k", input_json=second), new_job(idempotency_key="k", input_json=first)
    )

    assert (again.job_id, in_one_call.job_id) == (one, one)
    assert not again.created
    assert not in_one_call.created


async def test_all_but_kind_and_input_is_ignored(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(idempotency_key="k", priority=3)

    again = await client.enqueue(
        idempotency_key="k",
        priority=9,
        delay=60,
        retry=retry(max_attempts=9),
        labels={"a": "b"},
        dependency="d",
    )

    assert again == job_id
    assert await tables.standing(job_id) == "queued 0/1"


@pytest.mark.parametrize(
    "other", [{"kind": "other"}, {"input_json": '{"a": true}'}, {"input_json": '{"a": 1.5}'}]
)
@pytest.mark.parametrize("in_one_call", [False, True])
async def test_another_job_under_the_same_key_refuses_the_whole_call(
    client: Client, tables: Tables, other: dict[str, str], in_one_call: bool
) -> None:
    first = new_job(idempotency_key="k", input_json='{"a": 1}')
    second = new_job(**{"idempotency_key": "k", "input_json": '{"a": 1}', **other})
    if not in_one_call:
        await client.enqueue_all(first)

    with pytest.raises(grpc.RpcError) as error:
        await client.enqueue_all(new_job(kind="bystander"), *([first] if in_one_call else []), second)

    refusal = Refusal(error.value)
    assert (refusal.code, refusal.domain, refusal.reason) == (
        "ALREADY_EXISTS",
        "reprise",
        "IDEMPOTENCY_KEY_REUSED",
    )
    assert f"jobs[{2 if in_one_call else 1}].idempotency_key" in refusal.message
    assert await tables.value("SELECT count(*) FROM noetl.job WHERE kind = 'bystander'") == 0


async def test_keys_of_different_queues_have_nothing_to_do_with_each_other(client: Client) -> None:
    first, second = await client.enqueue_all(
        new_job(idempotency_key="k", queue="a"), new_job(idempotency_key="k", queue="b", kind="other")
    )

    assert first.created
    assert second.created
    assert first.job_id != second.job_id


async def test_the_same_twice_in_one_call_is_one_job(client: Client, tables: Tables) -> None:
    first, between, second = await client.enqueue_all(
        new_job(idempotency_key="k"), new_job(), new_job(idempotency_key="k")
    )

    assert first.job_id == second.job_id != between.job_id
    assert (first.created, second.created) == (True, False)
    assert await tables.value("SELECT count(*) FROM noetl.job") == 2


async def test_jobs_without_a_key_are_never_the_same(client: Client) -> None:
    first, second = await client.enqueue_all(new_job(), new_job())

    assert first.job_id != second.job_id


async def test_many_calls_at_once_at_two_brokers_make_one_job(
    client: Client, tables: Tables, database_url: str
) -> None:
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        brokers = [client, Client(channel)]

        answers = await asyncio.gather(
            *(
                brokers[number % 2].enqueue_all(
                    *(
                        new_job(idempotency_key=f"k{key}")
                        for key in (range(8) if number % 4 < 2 else reversed(range(8)))
                    )
                )
                for number in range(32)
            )
        )

    jobs = [job for answer in answers for job in answer]
    assert len({job.job_id for job in jobs}) == 8
    assert sum(job.created for job in jobs) == 8
    assert await tables.value("SELECT count(*) FROM noetl.job") == 8
    assert await tables.value("SELECT count(*) FROM noetl.event WHERE event_type = 'job_enqueued'") == 8


async def test_a_call_refused_for_its_key_fails_no_other_that_shares_its_statement(
    client: Client, tables: Tables
) -> None:
    await client.enqueue(idempotency_key="taken")

    answers = await asyncio.gather(
        *(
            client.enqueue_all(new_job(idempotency_key=f"k{number}"), new_job())
            if number % 2
            else client.enqueue_all(new_job(kind="bad", idempotency_key="taken"), new_job(kind="bad"))
            for number in range(20)
        ),
        return_exceptions=True,
    )

    assert [isinstance(answer, grpc.RpcError) for answer in answers] == [True, False] * 10
    assert await tables.value("SELECT count(*) FROM noetl.job") == 1 + 20
    assert await tables.value("SELECT count(*) FROM noetl.job WHERE kind = 'bad'") == 0


async def test_a_key_is_kept_for_24_hours_after_its_job_has_ended(
    client: Client, move_clock: MoveClock, database_url: str
) -> None:
    ended = await client.enqueue(idempotency_key="ended")
    await move_clock(48 * 3600)
    await client.complete((await client.lease()).lease_token)
    waiting = await client.enqueue(idempotency_key="waiting", delay=90 * 3600)
    await move_clock(23.9 * 3600)
    await _maintain(database_url)
    assert await client.enqueue(idempotency_key="ended") == ended

    await move_clock(0.2 * 3600)
    await _maintain(database_url)

    assert await client.enqueue(idempotency_key="ended") != ended
    assert await client.enqueue(idempotency_key="waiting") == waiting


async def test_a_key_of_a_dead_job_stands_for_it(client: Client) -> None:
    job_id = await client.enqueue(idempotency_key="k")
    await client.fail((await client.lease()).lease_token)

    (again,) = await client.enqueue_all(new_job(idempotency_key="k"))

    assert (again.job_id, again.created) == (job_id, False)


async def _maintain(database_url: str) -> None:
    """What a broker does once a minute."""
    maintenance = Maintenance(database_url)
    await maintenance()
    await maintenance.close()
