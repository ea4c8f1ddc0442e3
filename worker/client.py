"""The worker's side of the contract: every call to the broker is made here, and stubs are touched nowhere
else.

Complete and Fail are shared by what becomes ready at once, and repeated until the broker has answered.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc as stubs

from worker.background import background_loop
from worker.batching import SharedCall
from worker.config import default_broker
from worker.errors import enqueue_error_of
from worker.failure import Failure
from worker.lease import Enqueued, Extended, NewJob, Outcome, Reported
from worker.lease_stream import LeaseStream
from worker.new_jobs import new_job_messages, with_key
from worker.repeating import repeat_until_answered
from worker.wire import (
    decision_of,
    extended_of,
    failure_message,
    outcome_of,
    seconds_message,
)

CALL_SECONDS = 10.0  # a call that is not answered by then is made again
ENQUEUE_SECONDS = 60.0  # how long enqueue keeps trying
_OK = Reported(Outcome.OK)


class Client:
    """A connection to one broker, to be used from one event loop; `async with Client(...)` closes it."""

    def __init__(self, broker: str | None = None) -> None:
        """`broker` is HOST:PORT; default: REPRISE_BROKER, else 127.0.0.1:50051."""
        self._broker = broker or default_broker()
        self._channel = grpc.aio.insecure_channel(
            self._broker,
            options=[
                # Reconnecting is spread by the worker's own backoff; gRPC's own, up to two minutes, would add
                # to it.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ],
        )
        self._stub = stubs.BrokerServiceStub(self._channel)
        self._completions = SharedCall(self._complete)
        self._failures = SharedCall(self._fail)
        self._releases = SharedCall(self._release)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in flight end with an error."""
        await self._channel.close(None)

    async def enqueue(
        self,
        kind: str,
        input: Mapping[str, Any],  # noqa: A002 - the contract's word
        *,
        queue: str = "default",
        retry: bool | int | Mapping[str, Any] | None = None,
        priority: int = 0,
        delay_seconds: float | None = None,
        idempotency_key: str | None = None,
        dependency: str = "",
        attempt_timeout_seconds: float | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_seconds: float = ENQUEUE_SECONDS,
    ) -> Enqueued:
        """One durable job; its fields as NewJob has them. Tries for `timeout_seconds`, and raises, as `enqueue_all`."""
        job = NewJob(
            kind=kind,
            input=input,
            queue=queue,
            retry=retry,
            priority=priority,
            delay_seconds=delay_seconds,
            idempotency_key=idempotency_key,
            dependency=dependency,
            attempt_timeout_seconds=attempt_timeout_seconds,
            labels=labels,
        )
        return (await self.enqueue_all([job], timeout_seconds=timeout_seconds))[0]

    async def enqueue_all(
        self, jobs: Sequence[NewJob], *, timeout_seconds: float = ENQUEUE_SECONDS
    ) -> tuple[Enqueued, ...]:
        """All jobs (1 to 1000), durable, or none; in their order.

        Repeated for up to `timeout_seconds`, which enqueues nothing twice.

        Raises EnqueueRefused, KeyTaken, BrokerUnavailable or, on what else a broker may answer, EnqueueError.
        """
        request = pb.EnqueueRequest(jobs=new_job_messages([with_key(job) for job in jobs]))
        give_up_at = time.monotonic() + timeout_seconds

        def call() -> Awaitable[pb.EnqueueResponse]:
            left = give_up_at - time.monotonic()
            return self._stub.Enqueue(request, timeout=max(min(left, CALL_SECONDS), 0.001))

        try:
            answer = await repeat_until_answered(call, lambda: give_up_at)
        except grpc.aio.AioRpcError as error:
            raise enqueue_error_of(error, self._broker, timeout_seconds) from error
        return tuple(Enqueued(job.job_id, job.created) for job in answer.jobs)

    async def open_leases(
        self, worker_id: str, queues: Sequence[str], lease_seconds: float, first_credits: int
    ) -> LeaseStream:
        """A lease stream that the broker has accepted, with its first credits.

        Raises AioRpcError or TimeoutError when it cannot be reached.
        """
        call = self._stub.Lease(None)
        subscription = pb.LeaseRequest(
            worker_id=worker_id,
            queues=queues,
            lease_duration=seconds_message(lease_seconds),
            credits=first_credits,
        )
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await call.write(subscription)
        except asyncio.InvalidStateError:  # the call has ended already: reading raises its status
            await call.read()
            raise
        return LeaseStream(call)

    async def extend(self, tokens: Sequence[str], lease_seconds: float) -> list[Extended]:
        """Pushes the end of leases (1 to 1000) forward, counted from now; in the order of the tokens.

        Not repeated. Raises AioRpcError, after `extend_seconds` at the latest.
        """
        request = pb.ExtendRequest(
            extensions=[pb.Extension(lease_token=token) for token in tokens],
            lease_duration=seconds_message(lease_seconds),
        )
        sent_at = time.monotonic()
        answer = await self._stub.Extend(request, timeout=extend_seconds(lease_seconds))
        return [extended_of(result, sent_at) for result in answer.results]

    async def complete(self, token: str, result_json: str, give_up_at: Callable[[], float]) -> Reported:
        """Reports success, repeated until answered or `give_up_at()` (monotonic seconds); then raises the
        last AioRpcError.
        """
        item = pb.Completion(lease_token=token, result_json=result_json)
        size = len(token) + len(result_json)
        return await repeat_until_answered(lambda: self._completions.submit(item, size), give_up_at)

    async def fail(self, token: str, failure: Failure, give_up_at: Callable[[], float]) -> Reported:
        """Reports a failure, as `complete` reports success; the answer holds the broker's decision."""
        item = pb.FailedAttempt(lease_token=token, failure=failure_message(failure))
        return await repeat_until_answered(lambda: self._failures.submit(item, item.ByteSize()), give_up_at)

    async def release(self, token: str, give_up_at: Callable[[], float]) -> Reported:
        """Gives a lease back unused, its attempt restored; shared and repeated like `complete`."""
        return await repeat_until_answered(lambda: self._releases.submit(token, len(token)), give_up_at)

    async def _complete(self, items: Sequence[pb.Completion]) -> Sequence[Reported]:
        answer = await self._stub.Complete(pb.CompleteRequest(completions=items), timeout=CALL_SECONDS)
        return [
            _OK
            if result.outcome == pb.LEASE_OUTCOME_OK
            else Reported(outcome_of(result.outcome), error=result.error)
            for result in answer.results
        ]

    async def _fail(self, items: Sequence[pb.FailedAttempt]) -> Sequence[Reported]:
        answer = await self._stub.Fail(pb.FailRequest(attempts=items), timeout=CALL_SECONDS)
        return [_failed_of(result) for result in answer.results]

    async def _release(self, tokens: Sequence[str]) -> Sequence[Reported]:
        answer = await self._stub.Release(pb.ReleaseRequest(lease_tokens=tokens), timeout=CALL_SECONDS)
        return [Reported(outcome_of(result.outcome), error=result.error) for result in answer.results]


def extend_seconds(lease_seconds: float) -> float:
    """How long an Extend may take: a third of the lease, so that a call that hangs costs one beat, but 10 s at most."""
    return min(lease_seconds / 3, CALL_SECONDS)


def enqueue(
    kind: str,
    input: Mapping[str, Any],  # noqa: A002 - the contract's word
    *,
    broker: str | None = None,
    queue: str = "default",
    retry: bool | int | Mapping[str, Any] | None = None,
    priority: int = 0,
    delay_seconds: float | None = None,
    idempotency_key: str | None = None,
    dependency: str = "",
    attempt_timeout_seconds: float | None = None,
    labels: Mapping[str, str] | None = None,
    timeout_seconds: float = ENQUEUE_SECONDS,
) -> Enqueued:
    """One durable job, for a program without an event loop; its fields as NewJob has them.

    `broker` is HOST:PORT (default: REPRISE_BROKER, else 127.0.0.1:50051). Opens a connection per call. Tries for
    `timeout_seconds`, and raises, as `Client.enqueue_all`.
    """
    job = NewJob(
        kind=kind,
        input=input,
        queue=queue,
        retry=retry,
        priority=priority,
        delay_seconds=delay_seconds,
        idempotency_key=idempotency_key,
        dependency=dependency,
        attempt_timeout_seconds=attempt_timeout_seconds,
        labels=labels,
    )

    async def enqueue_once() -> Enqueued:
        async with Client(broker) as client:
            return (await client.enqueue_all([job], timeout_seconds=timeout_seconds))[0]

    return asyncio.run_coroutine_threadsafe(enqueue_once(), background_loop()).result()


def _failed_of(result: pb.Failed) -> Reported:
    decided = decision_of(result.decision) if result.HasField("decision") else None
    return Reported(outcome_of(result.outcome), decided, result.error)
