"""What ListEvents promises, through gRPC."""

import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.job_pb2 import (
    Failure,
    NewJob,
)
from reprise.v1.retry_pb2 import RetryPolicy

from tests.contract.queue_client import QueueClient


@pytest.fixture
def client(channel: grpc.aio.Channel) -> QueueClient:
    return QueueClient(channel)


async def events_of(client: QueueClient, request: pb.ListEventsRequest) -> list[tuple[str, object]]:
    """Type and result of every event, over all pages."""
    found: list[tuple[str, object]] = []
    while True:
        answer = await client.queues.ListEvents(request)
        assert answer.ByteSize() <= 3 * 1024 * 1024
        found += [
            (event.event_type, json.loads(event.result_json) if event.result_json else None)
            for event in answer.events
        ]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


@pytest.mark.parametrize("page_size", [0, 1, 2])
async def test_the_history_of_a_job_is_listed_oldest_first(client: QueueClient, page_size: int) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k", retry=RetryPolicy(initial_delay=Duration())))
    await client.fail((await client.lease())[0])
    await client.complete((await client.lease())[0], '{"ok":true}')

    events = await events_of(client, pb.ListEventsRequest(job_id=job_id, page_size=page_size))

    assert [event_type for event_type, _ in events] == [
        "job_enqueued",
        "action_started",
        "action_error",
        "action_retry",
        "action_started",
        "action_completed",
    ]
    assert events[4][1] == {"attempt": 2, "max_attempts": 3, "is_retry": True, "worker_id": "worker-7"}
    assert events[5][1] == {"ok": True}


async def test_only_events_of_the_types_asked_for_are_listed(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k"))
    await client.fail((await client.lease())[0])
    request = pb.ListEventsRequest(job_id=job_id, event_types=["job_dead", "action_started"])

    assert [event_type for event_type, _ in await events_of(client, request)] == [
        "action_started",
        "job_dead",
    ]


async def test_a_page_of_events_stays_below_the_message_limit(client: QueueClient) -> None:
    policy = RetryPolicy(max_attempts=5, initial_delay=Duration())
    (job_id,) = await client.enqueue(NewJob(kind="k", retry=policy))
    big = json.dumps("x" * 1_000_000)
    for _ in range(5):
        await client.fail((await client.lease())[0], Failure(message="m", result_json=big))

    events = await events_of(client, pb.ListEventsRequest(job_id=job_id, event_types=["action_error"]))

    assert len(events) == 5


@pytest.mark.parametrize("request_", [pb.ListEventsRequest(job_id=42), pb.ListEventsRequest(execution_id=42)])
async def test_events_of_what_is_not_there_are_not_found(
    client: QueueClient, request_: pb.ListEventsRequest
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.queues.ListEvents(request_)

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
