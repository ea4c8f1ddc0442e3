"""Every error carries what a program needs: a stable reason, the path of each bad field, and when to come again."""

import logging
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import policy_service_pb2, queue_service_pb2, queue_service_pb2_grpc

from broker.config import BrokerConfig
from broker.dispatcher import dispatcher
from broker.server import running
from broker.service.translate import failures
from tests.contract.client import Client, Refusal

QUEUE_SERVICE = queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"]
POLICY_SERVICE = policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"]
NOT_YET: list[MethodDescriptor] = [
    *(
        QUEUE_SERVICE.methods_by_name[name]
        for name in (
            "ExplainJob",
            "CancelJobs",
            "RedriveJobs",
            "RescheduleJobs",
            "UpdateQueue",
            "ListFailureGroups",
        )
    ),
    *POLICY_SERVICE.methods,
]


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        await call
    return Refusal(error.value)


async def refused_stream(client: Client, **first: Any) -> Refusal:
    stream = client.open_stream()
    await stream.ask(**first)
    return Refusal(await stream.end())


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ({"queues": ["no spaces", "fine", ""]}, ["queues[0]", "queues[2]"]),
        ({"queues": [f"q{number}" for number in range(65)]}, ["queues"]),
        ({"worker_id": "w" * 201}, ["worker_id"]),
        ({"worker_id": "a\0"}, ["worker_id"]),
        ({"lease_duration": Duration(nanos=999_000_000)}, ["lease_duration"]),
        ({"lease_duration": Duration(seconds=3601)}, ["lease_duration"]),
        ({"wait": Duration(seconds=61)}, ["wait"]),
        ({"wait": Duration(seconds=-1)}, ["wait"]),
        ({"credit": -1}, ["credits"]),
        ({"credit": 10_001}, ["credits"]),
        ({"queues": ["?"], "worker_id": "w" * 201, "wait": Duration(seconds=61)}, ["queues[0]", "worker_id", "wait"]),
    ],
    ids=lambda case: str(case)[:60],
)  # fmt: skip
async def test_a_subscription_is_refused_with_every_bad_field(
    client: Client, first: dict[str, Any], fields: list[str]
) -> None:
    refusal = await refused_stream(client, **first)

    assert (refusal.code, refusal.domain, refusal.fields) == ("INVALID_ARGUMENT", "reprise", fields)


async def test_a_stream_that_says_nothing_is_refused(client: Client) -> None:
    stream = client.open_stream()
    await stream.half_close()

    assert Refusal(await stream.end()).fields == ["queues"]


@pytest.mark.parametrize("count", [0, 1001])
async def test_every_list_has_1_to_1000_items(client: Client, count: int) -> None:
    stub = client.stub
    calls = {
        "completions": stub.Complete(pb.CompleteRequest(completions=[pb.Completion()] * count)),
        "attempts": stub.Fail(pb.FailRequest(attempts=[pb.FailedAttempt()] * count)),
        "extensions": stub.Extend(pb.ExtendRequest(extensions=[pb.Extension()] * count)),
        "lease_tokens": stub.Release(pb.ReleaseRequest(lease_tokens=["x"] * count)),
    }

    for field, call in calls.items():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason, refusal.fields) == (
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
            [field],
        )
        assert refusal.retry_after is None


async def test_what_is_not_there_is_not_found(channel: grpc.aio.Channel) -> None:
    stub = queue_service_pb2_grpc.QueueServiceStub(channel)

    refusal = await refused(stub.GetJob(queue_service_pb2.GetJobRequest(job_id=42)))

    assert (refusal.code, refusal.domain) == ("NOT_FOUND", "reprise")
    assert refusal.reason.endswith("NOT_FOUND")


async def test_every_call_whose_turn_has_not_come_is_refused_by_name(channel: grpc.aio.Channel) -> None:
    for method in NOT_YET:
        assert method.containing_service is not None
        call = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=bytes,
        )

        refusal = await refused(call(GetMessageClass(method.input_type)()))

        assert (refusal.code, refusal.domain, refusal.reason) == (
            "UNIMPLEMENTED",
            "reprise",
            "NOT_SUPPORTED_YET",
        )
        assert method.name in refusal.message


async def test_one_stream_too_many_is_told_when_to_come_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_STREAMS", 1)
    async with client.stream(1) as taken:
        await client.enqueue()
        await taken.leases(1)

        refusal = await refused_stream(client)

    assert (refusal.code, refusal.domain, refusal.reason) == (
        "RESOURCE_EXHAUSTED",
        "reprise",
        "LIMIT_EXCEEDED",
    )
    assert refusal.retry_after is not None
    assert refusal.retry_after > timedelta(0)


async def test_a_broker_that_shuts_down_sends_its_streams_elsewhere(database_url: str) -> None:
    broker = running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=1))
    async with grpc.aio.insecure_channel(await broker.__aenter__()) as channel:
        client = Client(channel)
        async with client.stream(5) as stream:
            await client.enqueue()
            await stream.leases(1)

            await broker.__aexit__(None, None, None)

            refusal = Refusal(await stream.end())
            assert (refusal.code, refusal.domain) == ("UNAVAILABLE", "reprise")
            assert refusal.retry_after is not None


async def test_what_nobody_foresaw_is_told_to_our_log_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(_: object) -> None:
        raise RuntimeError("a secret of ours")

    await client.enqueue()
    token = (await client.lease()).lease_token
    monkeypatch.setattr(failures, "read_failure", stumble)

    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as error:
        await client.fail(token)

    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.value)
    assert "a secret of ours" in caplog.text
