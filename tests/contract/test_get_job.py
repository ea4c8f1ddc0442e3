"""What GetJob promises, through gRPC, on jobs that the data plane has moved."""

import json
from datetime import timedelta

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.job_pb2 import (
    JOB_STATUS_DEAD,
    JOB_STATUS_DONE,
    JOB_STATUS_LEASED,
    JOB_STATUS_QUEUED,
    JOB_STATUS_RETRY,
    JOB_VIEW_FULL,
    Decision,
    Failure,
    NewJob,
)
from reprise.v1.retry_pb2 import RetryPolicy

from tests.contract.queue_client import FAILURE, QueueClient, reason_of
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock


@pytest.fixture
def client(channel: grpc.aio.Channel) -> QueueClient:
    return QueueClient(channel)


async def test_a_queued_job_shows_what_was_submitted_with_defaults_filled_in(client: QueueClient) -> None:
    sent = NewJob(
        queue="mail",
        kind="send-email",
        input_json='{"to": "a@b.c", "n": 12345678901234567890}',
        priority=7,
        retry=RetryPolicy(max_attempts=4),
        idempotency_key="key-1",
        dependency="smtp",
        labels={"tenant": "acme"},
    )
    sent.attempt_timeout.FromTimedelta(timedelta(seconds=90))

    (job_id,) = await client.enqueue(sent)
    job = await client.job(job_id, full=True)

    assert job.status == JOB_STATUS_QUEUED
    assert (job.queue, job.kind, job.priority, job.dependency) == ("mail", "send-email", 7, "smtp")
    assert (job.attempts, job.max_attempts, job.idempotency_key) == (0, 4, "key-1")
    assert dict(job.labels) == {"tenant": "acme"}
    assert job.input_json == sent.input_json
    assert job.attempt_timeout.ToTimedelta() == timedelta(seconds=90)
    assert job.retry.max_attempts == 4
    assert job.retry.initial_delay.ToTimedelta() == timedelta(seconds=1)
    assert job.retry.backoff_multiplier == 1.5
    assert job.retry.max_delay.ToTimedelta() == timedelta(seconds=60)
    assert job.HasField("created_at")
    assert job.HasField("available_at")
    absent = {"lease_expires_at", "finished_at", "last_failure", "last_decision"}
    assert not absent & {field.name for field, _ in job.ListFields()}
    assert (job.worker_id, job.held_by) == ("", "")


async def test_a_leased_job_shows_its_worker_and_until_when(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k"))
    (lease,) = await client.lease()

    job = await client.job(job_id)

    assert (job.status, job.attempts, job.worker_id) == (JOB_STATUS_LEASED, 1, "worker-7")
    assert job.lease_expires_at == lease.lease_expires_at
    assert not job.HasField("available_at")


async def test_a_failed_job_shows_its_failure_and_the_decision_on_it(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k", retry=RetryPolicy()))
    await client.fail((await client.lease())[0])

    job, full = await client.job(job_id), await client.job(job_id, full=True)

    assert (job.status, job.attempts, job.max_attempts) == (JOB_STATUS_RETRY, 1, 3)
    assert job.last_failure == FAILURE
    assert job.last_decision.verdict == Decision.VERDICT_RETRY
    assert job.last_decision.reason == Decision.REASON_ANY_FAILURE
    assert job.last_decision.delay.ToTimedelta() == timedelta(seconds=1)
    assert job.last_decision.available_at == job.available_at
    assert not job.last_decision.trace
    assert [step.check for step in full.last_decision.trace] == ["attempts", "delay"]
    assert job.worker_id == "worker-7"


async def test_a_done_job_shows_its_result_only_in_full(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k", input_json='{"a":1}'))
    await client.complete((await client.lease())[0], '{"total": 1.10}')

    basic, full = await client.job(job_id), await client.job(job_id, full=True)

    assert (basic.status, basic.attempts, basic.worker_id) == (JOB_STATUS_DONE, 1, "worker-7")
    assert basic.HasField("finished_at")
    assert (basic.input_json, basic.result_json) == ("", "")
    assert (full.input_json, full.result_json) == ('{"a":1}', '{"total": 1.10}')


async def test_a_dead_job_shows_when_and_why(client: QueueClient) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k"))
    await client.fail((await client.lease())[0])

    job = await client.job(job_id)

    assert (job.status, job.attempts, job.max_attempts) == (JOB_STATUS_DEAD, 1, 1)
    assert job.last_decision.verdict == Decision.VERDICT_DEAD
    assert job.last_decision.reason == Decision.REASON_NO_POLICY
    assert job.HasField("finished_at")
    assert not job.HasField("available_at")


@pytest.mark.parametrize("job_id", [0, -1, 42, 2**63 - 1])
async def test_a_job_that_is_not_there_is_not_found(client: QueueClient, job_id: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.job(job_id)

    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(refused.value) == "JOB_NOT_FOUND"


async def test_the_largest_possible_job_fits_in_a_message(client: QueueClient) -> None:
    text = json.dumps("x" * (1024 * 1024 - 10))
    new = NewJob(kind="k", input_json=f'{{"a":{text[:-6]}"}}', retry=RetryPolicy(initial_delay=Duration()))
    (job_id,) = await client.enqueue(new)
    await client.fail((await client.lease())[0], Failure(message="m", result_json=text))
    await client.complete((await client.lease())[0], text)

    answer = await client.queues.GetJob(pb.GetJobRequest(job_id=job_id, view=JOB_VIEW_FULL))

    assert answer.ByteSize() <= 3 * 1024 * 1024
    assert (answer.job.input_json, answer.job.result_json) == (new.input_json, text)
    assert answer.job.last_failure.message == "m"


async def test_no_message_has_a_field_that_json_cannot_show(client: QueueClient) -> None:
    for job_id in (await client.in_every_status()).values():
        assert json_format.MessageToDict(await client.job(job_id, full=True))["jobId"] == str(job_id)


async def test_a_job_is_not_found_once_its_retention_is_over(
    client: QueueClient, move_clock: MoveClock
) -> None:
    (job_id,) = await client.enqueue(NewJob(kind="k"))
    await client.complete((await client.lease())[0])
    await client.job(job_id)

    await move_clock(9 * 86_400)

    async def is_gone() -> bool:
        try:
            await client.job(job_id)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.NOT_FOUND
        return False

    await eventually(is_gone)
