"""A program as the broker sees it: every verb in one line, so that a test reads as a transcript."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

PATIENCE_SECONDS = 20.0

OK = pb.LEASE_OUTCOME_OK
LOST = pb.LEASE_OUTCOME_LOST
CANCELLED = pb.LEASE_OUTCOME_CANCELLED
INVALID = pb.LEASE_OUTCOME_INVALID

RETRY = job_pb2.Decision.VERDICT_RETRY
DEAD = job_pb2.Decision.VERDICT_DEAD


def seconds(number: float) -> Duration:
    """A duration message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=number))
    return message


def retry(**fields: Any) -> retry_pb2.RetryPolicy:
    """A policy; `initial_delay` and `max_delay` in seconds."""
    for name in ("initial_delay", "max_delay"):
        if name in fields:
            fields[name] = seconds(fields[name])
    return retry_pb2.RetryPolicy(**fields)


AT_ONCE = retry(initial_delay=0)
"""Three attempts without any wait between them."""


def new_job(**fields: Any) -> job_pb2.NewJob:
    """A job of kind "task" unless told otherwise; durations in seconds."""
    for name in ("delay", "attempt_timeout"):
        if name in fields:
            fields[name] = seconds(fields[name])
    return job_pb2.NewJob(**{"kind": "task", **fields})


class Stream:
    """An open Lease call."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, credit: int = 0, *, received: Sequence[str] = (), **first: Any) -> None:
        """Sends one message."""
        await self._call.write(pb.LeaseRequest(credits=credit, received=received, **first))

    async def next(self) -> pb.LeaseResponse:
        """The next message; a RuntimeError when the stream has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            response = await self._call.read()
        if not isinstance(response, pb.LeaseResponse):
            raise RuntimeError("the stream has ended")
        return response

    async def leases(self, count: int) -> list[job_pb2.Lease]:
        """The next `count` leases, waited for; never more come in the messages that bring them."""
        found: list[job_pb2.Lease] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < count:
                found.extend((await self.next()).leases)
        assert len(found) == count
        return found

    async def notice(self) -> pb.LeaseNotice:
        """The next notice, waited for."""
        while True:
            response = await self.next()
            if response.notices:
                (notice,) = response.notices
                return notice

    async def rest(self) -> list[job_pb2.Lease]:
        """Closes this side; whatever else is delivered until the broker ends the stream."""
        await self.half_close()
        leases: list[job_pb2.Lease] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while isinstance(response := await self._call.read(), pb.LeaseResponse):
                leases.extend(response.leases)
        return leases

    async def half_close(self) -> None:
        """Says that no more requests come."""
        await self._call.done_writing()

    async def status(self) -> grpc.StatusCode:
        """How the call ended, waited for."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            code: grpc.StatusCode = await self._call.code()
            return code

    async def end(self) -> grpc.RpcError:
        """The error that ends the call, waited for."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while isinstance(await self._call.read(), pb.LeaseResponse):
                    pass
            except grpc.RpcError as error:
                return error
        raise AssertionError("the stream ended without an error")

    def cancel(self) -> None:
        """Breaks the call."""
        self._call.cancel()


class Client:
    """One client of the broker, with the limits that a gRPC channel has by default."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        # The generated types want all requests at once; without them the call is written to as it goes.
        self._open_lease_call: Any = self.stub.Lease

    async def enqueue(self, **fields: Any) -> int:
        """The id of one new job."""
        (job,) = await self.enqueue_all(new_job(**fields))
        return job.job_id

    async def enqueue_all(self, *jobs: job_pb2.NewJob) -> list[pb.EnqueuedJob]:
        """All jobs in one call."""
        response: pb.EnqueueResponse = await self.stub.Enqueue(pb.EnqueueRequest(jobs=jobs))
        return list(response.jobs)

    async def poll(
        self,
        credit: int = 1,
        *,
        queues: Sequence[str] = (),
        wait: float = 0,
        lease_seconds: float = 30,
        worker_id: str = "worker-1",
    ) -> list[job_pb2.Lease]:
        """What a client gets that asks once and closes its side."""
        async with self.stream(
            credit, queues=queues, wait=wait, lease_seconds=lease_seconds, worker_id=worker_id
        ) as stream:
            return await stream.rest()

    async def lease(self, **asked: Any) -> job_pb2.Lease:
        """The one lease that comes, waited for; arguments as of `poll`."""
        (lease,) = await self.poll(1, **{"wait": PATIENCE_SECONDS, **asked})
        return lease

    def open_stream(self) -> Stream:
        """A Lease call that has said nothing yet."""
        return Stream(self._open_lease_call())

    @asynccontextmanager
    async def stream(
        self,
        credit: int = 0,
        *,
        queues: Sequence[str] = (),
        wait: float | None = None,
        lease_seconds: float | None = None,
        worker_id: str = "worker-1",
    ) -> AsyncIterator[Stream]:
        """A Lease call that has subscribed; broken at the end of the block unless it has ended."""
        stream = self.open_stream()
        await stream.ask(
            credit,
            worker_id=worker_id,
            queues=queues,
            wait=None if wait is None else seconds(wait),
            lease_duration=None if lease_seconds is None else seconds(lease_seconds),
        )
        try:
            yield stream
        finally:
            stream.cancel()

    async def complete(self, token: str, **output: Any) -> pb.LeaseOutcome.ValueType:
        """The outcome of one Complete; `result_json` or `result`."""
        request = pb.CompleteRequest(completions=[pb.Completion(lease_token=token, **output)])
        response: pb.CompleteResponse = await self.stub.Complete(request)
        (completed,) = response.results
        return completed.outcome

    async def fail(
        self, token: str, message: str = "boom", *, trace: bool = False, **failure: Any
    ) -> pb.Failed:
        """The answer to one Fail."""
        request = pb.FailRequest(
            attempts=[
                pb.FailedAttempt(lease_token=token, failure=job_pb2.Failure(message=message, **failure))
            ],
            trace=trace,
        )
        response: pb.FailResponse = await self.stub.Fail(request)
        (failed,) = response.results
        return failed

    async def extend(self, token: str, *, lease_seconds: float | None = None, **saved: Any) -> pb.Extended:
        """The answer to one Extend; `checkpoint_json` or `checkpoint`."""
        request = pb.ExtendRequest(
            extensions=[pb.Extension(lease_token=token, **saved)],
            lease_duration=None if lease_seconds is None else seconds(lease_seconds),
        )
        response: pb.ExtendResponse = await self.stub.Extend(request)
        (extended,) = response.results
        return extended

    async def release(self, token: str) -> pb.LeaseOutcome.ValueType:
        """The outcome of one Release."""
        response: pb.ReleaseResponse = await self.stub.Release(pb.ReleaseRequest(lease_tokens=[token]))
        (released,) = response.results
        return released.outcome


class Refusal:
    """A gRPC error with what it carries for programs."""

    def __init__(self, error: grpc.RpcError) -> None:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        assert status is not None, f"no google.rpc.Status came with {error!r}"
        self.code = code_pb2.Code.Name(status.code)
        self.message: str = status.message
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry_info = error_details_pb2.RetryInfo()
        self.kinds = [detail.TypeName() for detail in status.details]
        for detail in status.details:
            for message in (info, bad_request, retry_info):
                detail.Unpack(message)
        self.domain: str = info.domain
        self.reason: str = info.reason
        self.fields: list[str] = [violation.field for violation in bad_request.field_violations]
        self.violations = {
            violation.field: (violation.reason, violation.description)
            for violation in bad_request.field_violations
        }
        self.retry_after = (
            retry_info.retry_delay.ToTimedelta() if "google.rpc.RetryInfo" in self.kinds else None
        )
