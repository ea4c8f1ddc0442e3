"""No message of the broker exceeds 3 MiB, whatever it carries: clients at their default limits get everything."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from grpc_status import rpc_status
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2

from broker.dispatcher import dispatcher
from broker.errors import Unavailable
from broker.store.grant import grant
from tests.contract.client import AT_ONCE, INVALID, OK, Client, Refusal, new_job, retry
from tests.contract.tables import Tables

MIB = 1024 * 1024
LARGEST_MESSAGE = 3 * MIB


@pytest.fixture
async def strict(broker_address: str) -> AsyncIterator[Client]:
    """A client that takes no message larger than the contract allows."""
    options = [("grpc.max_receive_message_length", LARGEST_MESSAGE)]
    async with grpc.aio.insecure_channel(broker_address, options=options) as channel:
        yield Client(channel)


def text_of(size: int, *, fill: str = "x") -> str:
    """A JSON object of exactly `size` bytes."""
    return '{"a":"' + fill * (size - 8) + '"}'


async def test_jobs_of_one_mebibyte_reach_a_client_at_its_default_limits(client: Client) -> None:
    for _ in range(2):
        await client.enqueue_all(*(new_job(input_json=text_of(MIB)) for _ in range(10)))

    leases = await client.poll(20)

    assert [len(lease.input_json) for lease in leases] == [MIB] * 20


async def test_before_any_body_was_seen_a_lease_statement_takes_few(client: Client, tables: Tables) -> None:
    await client.enqueue_all(*(new_job() for _ in range(40)))

    await client.poll(40)

    of_statements = await tables.rows(
        "SELECT count(*) FROM noetl.lease GROUP BY xmin::text ORDER BY min(lease_id)"
    )
    assert of_statements[0] == (16,)
    assert sum(leases for (leases,) in of_statements) == 40


async def test_a_lease_statement_takes_fewer_where_leases_bring_large_failures(
    client: Client, tables: Tables
) -> None:
    await client.enqueue_all(*(new_job(retry=AT_ONCE) for _ in range(60)))
    tokens = [lease.lease_token for lease in await client.poll(60)]
    failure = job_pb2.Failure(message="boom", result_json=text_of(MIB // 2))
    for some in (tokens[:30], tokens[30:]):
        attempts = [pb.FailedAttempt(lease_token=token, failure=failure) for token in some]
        await client.stub.Fail(pb.FailRequest(attempts=attempts))
    await client.poll(4)

    await client.poll(56)

    of_statements = await tables.rows("SELECT count(*) FROM noetl.lease GROUP BY xmin::text")
    assert sum(leases for (leases,) in of_statements) == 60
    assert max(leases for (leases,) in of_statements) <= 32


async def test_a_lease_statement_that_failed_is_repeated_for_half_of_the_leases(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def failing_for_many(*arguments: Any) -> Any:
        _, _, slots, _ = arguments
        asked.append(len(slots))
        if len(slots) > 3:
            raise Unavailable("too much")
        return await grant(*arguments)

    monkeypatch.setattr(dispatcher, "grant", failing_for_many)
    monkeypatch.setattr(dispatcher, "_RETRY_SECONDS", 0.0)
    await client.enqueue_all(*(new_job() for _ in range(20)))

    async with client.stream(20) as stream:
        await stream.leases(20)

    assert asked[:4] == [16, 8, 4, 2]


async def test_the_largest_possible_lease_fits_into_a_message(strict: Client, tables: Tables) -> None:
    await strict.enqueue_all(
        *(
            new_job(
                input_json=text_of(MIB),
                retry=AT_ONCE,
                queue="q" * 128,
                kind="k" * 128,
                dependency="d" * 128,
                labels={f"{number}" + "ä" * 60: "ä" * 63 for number in range(16)},
            )
            for _ in range(3)
        )
    )
    grows = "[" + ",".join(["1e15"] * (MIB // 5)) + "]"
    assert len(grows) <= MIB
    for lease in await strict.poll(3, queues=["q" * 128]):
        saved = await strict.extend(lease.lease_token, checkpoint_json='"' + "c" * (64 * 1024 - 2) + '"')
        assert saved.outcome == OK
        await strict.fail(
            lease.lease_token, "m" * 8192, type="t" * 128, stack_trace="s" * 32_768, result_json=grows
        )

    leases = await strict.poll(3, queues=["q" * 128])

    assert [lease.last_failure.result_json for lease in leases] == [grows] * 3
    assert {len(lease.checkpoint_json) for lease in leases} == {64 * 1024}


async def test_many_small_leases_come_in_messages_below_the_limit(strict: Client) -> None:
    for _ in range(2):
        await strict.enqueue_all(*(new_job(input_json=text_of(8_000)) for _ in range(1000)))

    assert len(await strict.poll(2000)) == 2000


async def test_a_thousand_decisions_with_long_traces_come_in_one_message_below_the_limit(
    strict: Client,
) -> None:
    long = "{{ error != '" + "x" * 4070 + "' }}"
    await strict.enqueue_all(
        *(new_job(retry=retry(retry_when=long, stop_when=long.replace("!=", "=="))) for _ in range(1000))
    )
    tokens = [lease.lease_token for lease in await strict.poll(1000)]

    response = await strict.stub.Fail(
        pb.FailRequest(attempts=[pb.FailedAttempt(lease_token=token) for token in tokens], trace=True)
    )

    assert len(response.results) == 1000
    assert {result.decision.verdict for result in response.results} == {job_pb2.Decision.VERDICT_RETRY}
    assert response.results[0].decision.trace


async def test_a_thousand_long_errors_come_in_one_message_below_the_limit(strict: Client) -> None:
    response = await strict.stub.Complete(
        pb.CompleteRequest(
            completions=[pb.Completion(lease_token="x" * 36, result_json="{") for _ in range(1000)]
        )
    )

    assert len(response.results) == 1000


async def test_a_result_has_at_most_one_mebibyte(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()
    token = (await client.lease()).lease_token

    assert await client.complete(token, result_json=text_of(MIB + 1)) == INVALID
    assert await tables.standing(job_id) == "leased 1/1"
    assert await client.complete(token, result_json=text_of(MIB)) == OK


async def test_size_is_that_of_the_text_in_utf_8(client: Client) -> None:
    fits = '{"a":"' + "ä" * ((MIB - 8) // 2) + '"}'
    assert await client.enqueue(input_json=fits) > 0

    with pytest.raises(grpc.RpcError) as error:
        await client.enqueue(input_json=fits.replace("ä", "ää", 1))

    assert Refusal(error.value).fields == ["jobs[0].input_json"]


async def test_a_request_of_nearly_16_mebibytes_is_taken(client: Client) -> None:
    jobs = await client.enqueue_all(*(new_job(input_json=text_of(MIB - 1000)) for _ in range(16)))

    assert len(jobs) == 16


async def test_a_request_beyond_16_mebibytes_is_refused_and_not_to_be_repeated(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        await client.enqueue_all(*(new_job(input_json=text_of(MIB)) for _ in range(17)))

    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert rpc_status.from_call(error.value) is None  # type: ignore[arg-type] # every error of a call is a call


async def test_a_result_comes_into_the_tables_as_it_was_reported(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()
    value = {"n": 12345678901234567890, "l": [1.5, None, True], "ä": "😀"}

    await client.complete((await client.lease()).lease_token, result_json=json.dumps(value))

    (event,) = await tables.events(job_id, "action_completed")
    assert event.result == value


async def test_a_result_by_hand_is_any_json_and_null_by_default(client: Client, tables: Tables) -> None:
    first, second = [job.job_id for job in await client.enqueue_all(new_job(), new_job())]
    tokens = [lease.lease_token for lease in await client.poll(2)]

    await client.complete(tokens[0], result=Value(number_value=3))
    await client.complete(tokens[1])

    assert [(await tables.events(job_id))[-1].result for job_id in (first, second)] == [3, None]
