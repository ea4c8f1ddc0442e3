"""BrokerService: the data plane's edge. Translates, calls a verb, translates back; must not decide."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc

from broker.dispatcher import Dispatcher
from broker.errors import InvalidArgument, Violation
from broker.job import Outcome
from broker.lifecycle import Lifecycle
from broker.lifecycle.extend import Heartbeat
from broker.lifecycle.tokens import TokenCodec
from broker.service.lease_stream import LONGEST_LEASE, SHORTEST_LEASE, serve_stream
from broker.service.status import reports_errors, reports_stream_errors
from broker.service.translate.attempts import read_completions, read_extensions, read_failed_attempts
from broker.service.translate.decisions import DecisionWriter
from broker.service.translate.failures import FailureReader
from broker.service.translate.instants import duration_message, read_duration, timestamp_message
from broker.service.translate.new_jobs import NewJobReader

_MAX_ITEMS = 1000
_BYTES_FOR_A_THREAD = 256 * 1024
# Traces quote conditions: a thousand of them could pass the 3 MiB that a message may have.
_MAX_TRACES_BYTES = 2 * 1024 * 1024

_EXTENSION_LOST = pb.Extended(outcome=pb.LEASE_OUTCOME_LOST)

Values = TypeVar("Values")

_Context = grpc.aio.ServicerContext[object, object]


class BrokerService(broker_service_pb2_grpc.BrokerServiceServicer):
    """Serves Enqueue, Lease, Extend, Complete, Fail and Release; `closing` ends the lease streams when it is set."""

    def __init__(
        self, lifecycle: Lifecycle, dispatcher: Dispatcher, codec: TokenCodec, closing: asyncio.Event
    ) -> None:
        self._lifecycle = lifecycle
        self._dispatcher = dispatcher
        self._codec = codec
        self._closing = closing
        self._new_jobs = NewJobReader()
        self._failures = FailureReader()

    @reports_errors
    async def Enqueue(self, request: pb.EnqueueRequest, context: _Context) -> pb.EnqueueResponse:
        """All jobs of the call, or none."""
        jobs = await _read(request, lambda: self._new_jobs.read(request.jobs))
        response = pb.EnqueueResponse()
        add = response.jobs.add
        for job_id, created in await self._lifecycle.enqueue(jobs):
            # Set one by one, which takes half of what it takes as arguments (measured 2026-11).
            job = add()
            job.job_id = job_id
            job.created = created
        return response

    @reports_stream_errors
    def Lease(
        self, requests: AsyncIterator[pb.LeaseRequest], context: _Context
    ) -> AsyncGenerator[pb.LeaseResponse, None]:
        """Leases, as they become available and as the client has credits."""
        return serve_stream(requests, context.peer(), self._dispatcher, self._codec, self._closing)

    @reports_errors
    async def Extend(self, request: pb.ExtendRequest, context: _Context) -> pb.ExtendResponse:
        """The heartbeat of many leases. An unknown token is LOST, as one whose lease has ended."""
        seconds = _read_extension_seconds(request)
        extended, errors = await _read(request, lambda: read_extensions(self._codec, request.extensions))
        answers = [_EXTENSION_LOST] * len(request.extensions)
        for index, error in errors.items():
            answers[index] = pb.Extended(outcome=pb.LEASE_OUTCOME_INVALID, error=error)
        if extended:
            leases, checkpoints = zip(*extended.values(), strict=True)
            extensions = await self._lifecycle.extend(Heartbeat(leases, checkpoints, seconds))
            for index, (outcome, lease) in zip(extended, extensions, strict=True):
                if lease is not None:
                    answers[index] = pb.Extended(
                        outcome=pb.LeaseOutcome.ValueType(outcome),
                        lease_expires_at=timestamp_message(lease.expires_at),
                        lease_duration=duration_message(timedelta(seconds=max(0.0, lease.seconds_left))),
                    )
        return pb.ExtendResponse(results=answers)

    @reports_errors
    async def Complete(self, request: pb.CompleteRequest, context: _Context) -> pb.CompleteResponse:
        """Attempts that succeeded. An unknown token is LOST."""
        _check_count("completions", request.completions)
        results, errors = await _read(request, lambda: read_completions(self._codec, request.completions))
        answers = [_COMPLETED[Outcome.LOST]] * len(request.completions)
        for index, error in errors.items():
            answers[index] = _completed(pb.Completed(outcome=pb.LEASE_OUTCOME_INVALID, error=error))
        if results:
            outcomes = await self._lifecycle.complete(list(results.values()))
            for index, outcome in zip(results, outcomes, strict=True):
                answers[index] = _COMPLETED[outcome]
        return pb.CompleteResponse.FromString(b"".join(answers))

    @reports_errors
    async def Fail(self, request: pb.FailRequest, context: _Context) -> pb.FailResponse:
        """Attempts that failed: facts in, decisions out; beyond 2 MiB of them without their traces, which the events keep."""
        _check_count("attempts", request.attempts)
        failed, _ = await _read(
            request, lambda: read_failed_attempts(self._codec, self._failures, request.attempts)
        )
        decided = await self._lifecycle.fail(list(failed.values())) if failed else []
        answers = dict(zip(failed, decided, strict=True))
        response = pb.FailResponse()
        writer = DecisionWriter()
        room = _MAX_TRACES_BYTES if request.trace else 0
        for index in range(len(request.attempts)):
            result = response.results.add()
            answer = answers.get(index)
            if answer is None:
                result.outcome = pb.LEASE_OUTCOME_LOST
                continue
            result.outcome = pb.LeaseOutcome.ValueType(answer.outcome)
            if answer.decision is not None:
                writer.write(result.decision, answer.decision, answer.available_at, with_trace=room > 0)
                if room > 0:
                    room -= result.decision.ByteSize()
        return response

    @reports_errors
    async def Release(self, request: pb.ReleaseRequest, context: _Context) -> pb.ReleaseResponse:
        """Leases given back unused."""
        _check_count("lease_tokens", request.lease_tokens)
        leases = [self._codec.read(token) for token in request.lease_tokens]
        known = [lease for lease in leases if lease is not None]
        outcomes = iter(await self._lifecycle.release(known) if known else ())
        return pb.ReleaseResponse(
            results=[
                pb.Released(
                    outcome=pb.LEASE_OUTCOME_LOST
                    if lease is None
                    else pb.LeaseOutcome.ValueType(next(outcomes))
                )
                for lease in leases
            ]
        )


def _completed(result: pb.Completed) -> bytes:
    """The serialized response of one result. Such responses one behind the other are one with all their results, by the wire format:
    to read it takes a tenth of what it takes to copy the results into it (measured 2026-11).
    """
    return pb.CompleteResponse(results=[result]).SerializeToString()


_COMPLETED = {
    outcome: _completed(pb.Completed(outcome=pb.LeaseOutcome.ValueType(outcome))) for outcome in Outcome
}


async def _read(request: Message, read: Callable[[], Values]) -> Values:
    """What `read` makes of a request, in a thread where that takes long: the loop carries everybody's heartbeats."""
    return await asyncio.to_thread(read) if request.ByteSize() > _BYTES_FOR_A_THREAD else read()


def _read_extension_seconds(request: pb.ExtendRequest) -> float | None:
    """By how much to prolong, None: as at first. Raises InvalidArgument, also on too many items."""
    violations = _count_violations("extensions", request.extensions)
    seconds = None
    if request.HasField("lease_duration"):
        seconds = read_duration(
            request.lease_duration, "lease_duration", violations, least=SHORTEST_LEASE, most=LONGEST_LEASE
        ).total_seconds()
    if violations:
        raise InvalidArgument(*violations)
    return seconds


def _count_violations(field: str, items: Sequence[object]) -> list[Violation]:
    if 1 <= len(items) <= _MAX_ITEMS:
        return []
    return [Violation(field, f"must be 1 to {_MAX_ITEMS}, not {len(items)}")]


def _check_count(field: str, items: Sequence[object]) -> None:
    violations = _count_violations(field, items)
    if violations:
        raise InvalidArgument(*violations)
