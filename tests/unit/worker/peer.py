"""The other end of the wire: a peer that speaks the contract, does what a test tells it and remembers what it
was told.

It keeps no jobs and decides nothing; what the broker does with its store is tested against the broker.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc as stubs
from reprise.v1 import job_pb2

RETRY = job_pb2.Decision(
    verdict=job_pb2.Decision.VERDICT_RETRY,
    reason=job_pb2.Decision.REASON_ANY_FAILURE,
    attempt=1,
    max_attempts=3,
    delay=Duration(seconds=1, nanos=500_000_000),
)


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


def lease(token: str, kind: str = "test", input_json: str = "{}", **fields: Any) -> job_pb2.Lease:
    """A lease of 30 s on the first of three attempts."""
    known: dict[str, Any] = {"job_id": 7, "queue": "default", "attempt": 1, "max_attempts": 3}
    known |= {"lease_duration": seconds(30)} | fields
    return job_pb2.Lease(lease_token=token, kind=kind, input_json=input_json, **known)


@dataclass(frozen=True)
class Refusal:
    """A status that the peer answers with once; `asks_again` adds RetryInfo."""

    code: grpc.StatusCode
    details: str = "refused"
    asks_again: bool = False
    bad_fields: tuple[tuple[str, str], ...] = ()

    async def raise_in(self, context: Any) -> None:
        if self.asks_again or self.bad_fields:
            info = error_details_pb2.RetryInfo() if self.asks_again else error_details_pb2.BadRequest()
            for path, text in self.bad_fields:
                info.field_violations.add(field=path, description=text)
            status = status_pb2.Status(code=self.code.value[0], message=self.details)
            status.details.add().Pack(info)
            trailer = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(self.code, self.details, trailer)
        await context.abort(self.code, self.details)


class PeerStream:
    """One lease stream as the peer sees it."""

    def __init__(self) -> None:
        self.subscription = pb.LeaseRequest()
        self.credits = 0  # unused
        self.received: list[str] = []
        self.is_over = False
        self.outgoing: asyncio.Queue[pb.LeaseResponse | Refusal | None] = asyncio.Queue()
        self._changed = asyncio.Condition()

    def deliver(self, *leases: job_pb2.Lease) -> None:
        self.credits -= len(leases)
        self.outgoing.put_nowait(pb.LeaseResponse(leases=leases))

    def notify(self, token: str, kind: pb.LeaseNotice.Kind.ValueType) -> None:
        self.outgoing.put_nowait(pb.LeaseResponse(notices=[pb.LeaseNotice(lease_token=token, kind=kind)]))

    def break_off(self, refusal: Refusal | None = None) -> None:
        self.outgoing.put_nowait(refusal or Refusal(grpc.StatusCode.UNAVAILABLE))

    async def take(self, request: pb.LeaseRequest) -> None:
        async with self._changed:
            self.credits += request.credits
            self.received += request.received
            self._changed.notify_all()

    async def end(self) -> None:
        async with self._changed:
            self.is_over = True
            self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self._changed, asyncio.timeout(5):
            await self._changed.wait_for(condition)


@dataclass
class Peer(stubs.BrokerServiceServicer):
    """Answers OK to everything unless told otherwise; a failure's decision is RETRY."""

    streams: asyncio.Queue[PeerStream] = field(default_factory=asyncio.Queue)
    completed: asyncio.Queue[pb.Completion] = field(default_factory=asyncio.Queue)
    failed: asyncio.Queue[pb.FailedAttempt] = field(default_factory=asyncio.Queue)
    released: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    extended: asyncio.Queue[list[str]] = field(default_factory=asyncio.Queue)
    beats: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # for other threads
    calls: list[Any] = field(default_factory=list)  # every unary request, refused ones too
    refusals: deque[Refusal] = field(default_factory=deque)  # for the next unary calls, Extend excepted
    on_extend: dict[str, pb.LeaseOutcome.ValueType] = field(default_factory=dict)
    extend_seconds: list[float] = field(default_factory=list)  # how long each Extend would have waited
    refuses_extend_of: str = ""  # a token; the whole call is refused, every time
    is_extend_answered_short: bool = False  # without a single result, against the contract
    on_complete: pb.LeaseOutcome.ValueType = pb.LEASE_OUTCOME_OK
    is_fail_lost: bool = False  # its leases have ended
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # unary calls wait for it, Extend excepted
    extend_gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.extend_gate.set()

    async def next(self, queue: "asyncio.Queue[Any]") -> Any:
        async with asyncio.timeout(5):
            return await queue.get()

    async def Enqueue(self, request: pb.EnqueueRequest, context: Any) -> pb.EnqueueResponse:  # noqa: N802
        await self._admit(request, context)
        return pb.EnqueueResponse(jobs=[pb.EnqueuedJob(job_id=41, created=True) for _ in request.jobs])

    async def Lease(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.LeaseResponse]:  # noqa: N802
        stream = PeerStream()

        async def read() -> None:
            async for request in request_iterator:
                if not stream.subscription.worker_id:
                    stream.subscription.CopyFrom(request)
                    self.streams.put_nowait(stream)
                await stream.take(request)

        reading = asyncio.create_task(read())
        try:
            while (message := await stream.outgoing.get()) is not None:
                if isinstance(message, Refusal):
                    await message.raise_in(context)
                else:
                    yield message
        finally:
            reading.cancel()
            await stream.end()

    async def Extend(self, request: pb.ExtendRequest, context: Any) -> pb.ExtendResponse:  # noqa: N802
        tokens = [extension.lease_token for extension in request.extensions]
        self.extended.put_nowait(tokens)
        self.extend_seconds.append(context.time_remaining())
        self.beats.release()
        await self.extend_gate.wait()
        if self.refuses_extend_of in tokens:
            await Refusal(grpc.StatusCode.UNAVAILABLE).raise_in(context)
        if self.is_extend_answered_short:
            return pb.ExtendResponse()
        outcomes = [self.on_extend.get(token, pb.LEASE_OUTCOME_OK) for token in tokens]
        return pb.ExtendResponse(
            results=[
                pb.Extended(outcome=outcome, lease_duration=request.lease_duration) for outcome in outcomes
            ]
        )

    async def Complete(self, request: pb.CompleteRequest, context: Any) -> pb.CompleteResponse:  # noqa: N802
        await self._admit(request, context)
        for completion in request.completions:
            self.completed.put_nowait(completion)
        answer = pb.Completed(outcome=self.on_complete)
        return pb.CompleteResponse(results=[answer] * len(request.completions))

    async def Fail(self, request: pb.FailRequest, context: Any) -> pb.FailResponse:  # noqa: N802
        await self._admit(request, context)
        for attempt in request.attempts:
            self.failed.put_nowait(attempt)
        decided = pb.Failed(outcome=pb.LEASE_OUTCOME_OK, decision=RETRY)
        answer = pb.Failed(outcome=pb.LEASE_OUTCOME_LOST) if self.is_fail_lost else decided
        return pb.FailResponse(results=[answer] * len(request.attempts))

    async def Release(self, request: pb.ReleaseRequest, context: Any) -> pb.ReleaseResponse:  # noqa: N802
        await self._admit(request, context)
        for token in request.lease_tokens:
            self.released.put_nowait(token)
        answer = pb.Released(outcome=pb.LEASE_OUTCOME_OK)
        return pb.ReleaseResponse(results=[answer] * len(request.lease_tokens))

    async def _admit(self, request: Any, context: Any) -> None:
        self.calls.append(request)
        await self.gate.wait()
        if self.refusals:
            await self.refusals.popleft().raise_in(context)
