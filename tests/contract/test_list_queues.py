"""What ListQueues promises, and which calls of its service are still to come."""

from collections.abc import Sequence
from datetime import timedelta

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as broker_pb
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.job_pb2 import (
    NewJob,
)

from tests.contract.queue_client import QueueClient, reason_of


@pytest.fixture
def client(channel: grpc.aio.Channel) -> QueueClient:
    return QueueClient(channel)


async def test_queues_show_how_full_they_are(client: QueueClient) -> None:
    await client.in_every_status()
    scheduled = NewJob(queue="later", kind="k")
    scheduled.delay.FromTimedelta(timedelta(days=1))
    await client.enqueue(scheduled)

    default, later = (await client.queues.ListQueues(pb.ListQueuesRequest())).queues

    assert (default.name, later.name) == ("default", "later")
    assert (default.queued, default.leased, default.retry, default.dead) == (1, 1, 1, 1)
    assert (default.scheduled, default.held, default.paused) == (0, 0, False)
    assert default.HasField("oldest_due_age")
    assert (later.queued, later.scheduled) == (0, 1)
    assert not later.HasField("oldest_due_age")


async def test_queues_show_how_many_workers_subscribe(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(queue="mail", kind="k"))
    request = broker_pb.LeaseRequest(queues=["mail"], credits=1)
    async with client.stream(request) as delivered:
        assert await anext(delivered) == job_id

        (queue,) = (await client.queues.ListQueues(pb.ListQueuesRequest())).queues

    assert queue.workers == 1


_NOT_YET: Sequence[tuple[str, object]] = [
    ("ExplainJob", pb.ExplainJobRequest()),
    ("CancelJobs", pb.CancelJobsRequest()),
    ("RedriveJobs", pb.RedriveJobsRequest()),
    ("RescheduleJobs", pb.RescheduleJobsRequest()),
    ("UpdateQueue", pb.UpdateQueueRequest()),
    ("ListFailureGroups", pb.ListFailureGroupsRequest()),
]


@pytest.mark.parametrize(("rpc", "request_"), _NOT_YET)
async def test_a_call_whose_turn_has_not_come_is_refused_by_name(
    client: QueueClient, rpc: str, request_: object
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(client.queues, rpc)(request_)

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert rpc in (refused.value.details() or "")
    assert reason_of(refused.value) == "NOT_SUPPORTED_YET"
