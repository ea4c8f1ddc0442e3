"""What ListJobs promises, through gRPC, on jobs that the data plane has moved."""

import json
from datetime import timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.job_pb2 import (
    JOB_STATUS_DEAD,
    JOB_STATUS_LEASED,
    JOB_STATUS_QUEUED,
    JOB_STATUS_RETRY,
    JOB_STATUS_UNSPECIFIED,
    JOB_VIEW_FULL,
    Failure,
    JobStatus,
    NewJob,
)
from reprise.v1.retry_pb2 import RetryPolicy

from tests.contract.queue_client import QueueClient, violations_of
from tests.fixtures_database import MoveClock


@pytest.fixture
def client(channel: grpc.aio.Channel) -> QueueClient:
    return QueueClient(channel)


async def test_without_a_filter_all_jobs_are_listed_newest_first(client: QueueClient) -> None:
    jobs = await client.enqueue(*(NewJob(kind="k") for _ in range(7)))

    assert await client.list_jobs(page_size=3) == sorted(jobs, reverse=True)


@pytest.mark.parametrize("status", [status for status in JobStatus.values() if status])
async def test_jobs_are_listed_by_status(client: QueueClient, status: JobStatus.ValueType) -> None:
    jobs = await client.in_every_status()

    assert await client.list_jobs(pb.JobFilter(statuses=[status])) == [jobs[status]]


async def test_jobs_are_listed_by_several_statuses(client: QueueClient) -> None:
    jobs = await client.in_every_status()
    statuses = [JOB_STATUS_DEAD, JOB_STATUS_QUEUED, JOB_STATUS_LEASED, JOB_STATUS_RETRY]

    found = await client.list_jobs(pb.JobFilter(statuses=statuses), page_size=1)

    assert found == sorted((jobs[status] for status in statuses), reverse=True)


async def test_a_scheduled_job_is_queued_and_a_promoted_retry_is_still_a_retry(
    client: QueueClient, move_clock: MoveClock
) -> None:
    scheduled = NewJob(kind="k")
    scheduled.delay.FromTimedelta(timedelta(days=1))
    later, failed = await client.enqueue(scheduled, NewJob(kind="k", retry=RetryPolicy()))
    await client.fail((await client.lease())[0])
    await move_clock(5)

    assert await client.list_jobs(pb.JobFilter(statuses=[JOB_STATUS_QUEUED])) == [later]
    assert await client.list_jobs(pb.JobFilter(statuses=[JOB_STATUS_RETRY])) == [failed]


async def test_jobs_are_listed_by_each_filter_alone(client: QueueClient) -> None:
    other, wanted = await client.enqueue(
        NewJob(queue="q1", kind="k1"),
        NewJob(queue="q2", kind="k2", dependency="smtp", labels={"tenant": "acme", "tier": "gold"}),
    )
    await client.fail((await client.lease("q1"))[0], Failure(message="m", type="A"))
    await client.fail((await client.lease("q2"))[0], Failure(message="m", type="B"))
    made = (await client.job(wanted)).created_at

    assert await client.list_jobs(pb.JobFilter(job_ids=[wanted, 42])) == [wanted]
    assert await client.list_jobs(pb.JobFilter(queue="q2")) == [wanted]
    assert await client.list_jobs(pb.JobFilter(kind="k2")) == [wanted]
    assert await client.list_jobs(pb.JobFilter(dependency="smtp")) == [wanted]
    assert await client.list_jobs(pb.JobFilter(labels={"tenant": "acme"})) == [wanted]
    assert await client.list_jobs(pb.JobFilter(labels={"tenant": "nobody"})) == []
    assert await client.list_jobs(pb.JobFilter(failure_type="B")) == [wanted]
    assert await client.list_jobs(pb.JobFilter(created_after=made)) == []
    assert await client.list_jobs(pb.JobFilter(created_before=made, job_ids=[wanted])) == []
    assert wanted in await client.list_jobs(pb.JobFilter(queue="q2", statuses=[JOB_STATUS_DEAD]))
    assert await client.list_jobs(pb.JobFilter(queue="q2", failure_type="A")) == []
    assert other in await client.list_jobs(pb.JobFilter(queue="q1"))


async def test_jobs_made_between_two_instants_are_listed(client: QueueClient, move_clock: MoveClock) -> None:
    jobs = []
    for _ in range(3):
        jobs += await client.enqueue(NewJob(kind="k"))
        await move_clock(1)
    first, _, last = [(await client.job(job_id)).created_at for job_id in jobs]

    assert await client.list_jobs(pb.JobFilter(created_after=first, created_before=last)) == [jobs[1]]


async def test_a_page_of_full_jobs_stays_below_the_message_limit(client: QueueClient) -> None:
    big = json.dumps({"text": "x" * 900_000})
    jobs = await client.enqueue(*(NewJob(kind="k", input_json=big) for _ in range(7)))
    request = pb.ListJobsRequest(view=JOB_VIEW_FULL)
    found: list[int] = []

    while True:
        answer = await client.queues.ListJobs(request)
        assert answer.ByteSize() <= 3 * 1024 * 1024
        assert all(job.input_json == big for job in answer.jobs)
        found += [job.job_id for job in answer.jobs]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token

    assert found == sorted(jobs, reverse=True)


@pytest.mark.parametrize(
    ("rpc", "request_", "field", "reason"),
    [
        (
            "ListJobs",
            pb.ListJobsRequest(filter=pb.JobFilter(fingerprint="f")),
            "filter.fingerprint",
            "NOT_SUPPORTED_YET",
        ),
        (
            "ListJobs",
            pb.ListJobsRequest(filter=pb.JobFilter(job_ids=range(1001))),
            "filter.job_ids",
            "INVALID",
        ),
        ("ListJobs", pb.ListJobsRequest(filter=pb.JobFilter(queue="a\0")), "filter.queue", "INVALID"),
        ("ListJobs", pb.ListJobsRequest(filter=pb.JobFilter(labels={"a": "\0"})), "filter.labels", "INVALID"),
        (
            "ListJobs",
            pb.ListJobsRequest(filter=pb.JobFilter(statuses=[JOB_STATUS_UNSPECIFIED])),
            "filter.statuses[0]",
            "INVALID",
        ),
        (
            "ListJobs",
            pb.ListJobsRequest(filter=pb.JobFilter(created_after=Timestamp(nanos=-1))),
            "filter.created_after",
            "INVALID",
        ),
        ("ListJobs", pb.ListJobsRequest(page_size=-1), "page_size", "INVALID"),
        ("ListJobs", pb.ListJobsRequest(page_token="nonsense"), "page_token", "INVALID"),
        ("ListJobs", pb.ListJobsRequest(page_token="AAAA" * 20), "page_token", "INVALID"),
        ("ListEvents", pb.ListEventsRequest(), "job_id", "INVALID"),
        ("ListEvents", pb.ListEventsRequest(job_id=1, execution_id=1), "job_id", "INVALID"),
        ("ListEvents", pb.ListEventsRequest(job_id=1, event_types=["nonsense"]), "event_types[0]", "INVALID"),
        ("ListEvents", pb.ListEventsRequest(job_id=1, page_token="nonsense"), "page_token", "INVALID"),
    ],
)
async def test_a_bad_field_is_named(
    client: QueueClient, rpc: str, request_: object, field: str, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(client.queues, rpc)(request_)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(refused.value) == [(field, reason)]


@pytest.mark.parametrize(
    ("rpc", "request_", "fields"),
    [
        (
            "ListJobs",
            pb.ListJobsRequest(filter=pb.JobFilter(queue="\0"), page_size=-1, page_token="?", view=9),  # type: ignore[arg-type]
            ["filter.queue", "page_size", "view", "page_token"],
        ),
        (
            "ListEvents",
            pb.ListEventsRequest(event_types=["?"], page_size=-1, page_token="?"),
            ["job_id", "event_types[0]", "page_size", "page_token"],
        ),
    ],
)
async def test_all_bad_fields_are_named_at_once(
    client: QueueClient, rpc: str, request_: object, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(client.queues, rpc)(request_)

    assert [field for field, _ in violations_of(refused.value)] == fields


async def test_a_page_token_is_refused_with_another_filter(client: QueueClient) -> None:
    await client.enqueue(NewJob(kind="k"), NewJob(kind="k"))
    token = (await client.queues.ListJobs(pb.ListJobsRequest(page_size=1))).next_page_token

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.queues.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(kind="k"), page_token=token))

    assert violations_of(refused.value) == [("page_token", "INVALID")]


async def test_a_page_may_be_of_another_size_than_the_one_before(client: QueueClient) -> None:
    jobs = await client.enqueue(*(NewJob(kind="k") for _ in range(3)))
    token = (await client.queues.ListJobs(pb.ListJobsRequest(page_size=1))).next_page_token

    rest = await client.queues.ListJobs(pb.ListJobsRequest(page_size=5000, page_token=token))

    assert [job.job_id for job in rest.jobs] == sorted(jobs, reverse=True)[1:]
    assert rest.next_page_token == ""
