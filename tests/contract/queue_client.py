"""A client of the data plane and the operator's plane, for tests of what can be looked at."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from reprise.v1 import broker_service_pb2 as broker_pb
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1.broker_service_pb2_grpc import BrokerServiceStub
from reprise.v1.job_pb2 import (
    JOB_STATUS_DEAD,
    JOB_STATUS_DONE,
    JOB_STATUS_LEASED,
    JOB_STATUS_QUEUED,
    JOB_STATUS_RETRY,
    JOB_VIEW_BASIC,
    JOB_VIEW_FULL,
    Failure,
    Job,
    JobStatus,
    Lease,
    NewJob,
)
from reprise.v1.queue_service_pb2_grpc import QueueServiceStub
from reprise.v1.retry_pb2 import RetryPolicy

FAILURE = Failure(message="the bank said no", type="http.503", status_code=503, result_json='{"n":1}')


class QueueClient:
    """Both planes, with the steps that bring a job where a test wants it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.broker = BrokerServiceStub(channel)
        self.queues = QueueServiceStub(channel)

    async def enqueue(self, *jobs: NewJob) -> list[int]:
        answer = await self.broker.Enqueue(broker_pb.EnqueueRequest(jobs=jobs))
        return [job.job_id for job in answer.jobs]

    async def lease(self, queue: str = "default", count: int = 1) -> list[Lease]:
        request = broker_pb.LeaseRequest(queues=[queue], credits=count, worker_id="worker-7")
        request.wait.FromTimedelta(timedelta(seconds=10))
        return [lease async for answer in self.broker.Lease(iter([request])) for lease in answer.leases]

    @asynccontextmanager
    async def stream(self, *requests: broker_pb.LeaseRequest) -> AsyncIterator[AsyncIterator[int]]:
        """A lease stream that stays open inside the block; gives the ids of the jobs that it delivers."""
        closed = asyncio.Event()

        async def send() -> AsyncIterator[broker_pb.LeaseRequest]:
            for request in requests:
                yield request
            await closed.wait()

        call = self.broker.Lease(send())
        yield (lease.job_id async for answer in call for lease in answer.leases)
        closed.set()
        call.cancel()

    async def complete(self, lease: Lease, result_json: str = "null") -> None:
        completion = broker_pb.Completion(lease_token=lease.lease_token, result_json=result_json)
        await self.broker.Complete(broker_pb.CompleteRequest(completions=[completion]))

    async def fail(self, lease: Lease, failure: Failure = FAILURE) -> None:
        attempt = broker_pb.FailedAttempt(lease_token=lease.lease_token, failure=failure)
        await self.broker.Fail(broker_pb.FailRequest(attempts=[attempt]))

    async def job(self, job_id: int, *, full: bool = False) -> Job:
        view = JOB_VIEW_FULL if full else JOB_VIEW_BASIC
        return (await self.queues.GetJob(pb.GetJobRequest(job_id=job_id, view=view))).job

    async def list_jobs(self, filter_: pb.JobFilter | None = None, page_size: int = 100) -> list[int]:
        """Ids of all pages, in their order."""
        request = pb.ListJobsRequest(filter=filter_, page_size=page_size)
        found: list[int] = []
        while True:
            answer = await self.queues.ListJobs(request)
            found += [job.job_id for job in answer.jobs]
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def in_every_status(self) -> dict[JobStatus.ValueType, int]:
        """One job in each status, by status."""
        retry = RetryPolicy(max_attempts=3)
        done, dead, waiting, leased = await self.enqueue(
            NewJob(kind="k"), NewJob(kind="k"), NewJob(kind="k", retry=retry), NewJob(kind="k")
        )
        leases = {lease.job_id: lease for lease in await self.lease(count=4)}
        await self.complete(leases[done])
        await self.fail(leases[dead])
        await self.fail(leases[waiting])
        (queued,) = await self.enqueue(NewJob(kind="k"))
        return {
            JOB_STATUS_DONE: done,
            JOB_STATUS_DEAD: dead,
            JOB_STATUS_RETRY: waiting,
            JOB_STATUS_LEASED: leased,
            JOB_STATUS_QUEUED: queued,
        }


def violations_of(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    """(field, reason) of every bad field that the error names."""
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in _details(error))
    return [(violation.field, violation.reason) for violation in bad_request.field_violations]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The stable reason that the error carries."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in _details(error))
    assert info.domain == "reprise"
    return str(info.reason)


def _details(error: grpc.aio.AioRpcError) -> Sequence[Any]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # it has what a call has
    return list(status.details)
