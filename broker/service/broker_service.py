"""BrokerService: the data plane's edge. Translates, calls a verb, translates back; must not decide."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import timedelta

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc

from broker.dispatcher import Dispatcher
from broker.errors import InvalidArgument, Violation
from broker.job import Outcome
from broker.json_text import JsonInvalid, check_json
from broker.lifecycle import Lifecycle
from broker.lifecycle.complete import Result
from broker.lifecycle.extend import Heartbeat
from broker.lifecycle.fail import FailedResult
from broker.lifecycle.judge import Reported
from broker.lifecycle.tokens import LeaseRef, TokenCodec
from broker.service.lease_stream import LONGEST_LEASE, SHORTEST_LEASE, serve_stream
from broker.service.status import reports_errors, reports_stream_errors
from broker.service.translate.decisions import decision_message
from broker.service.translate.failures import read_failure
from broker.service.translate.instants import duration_message, read_duration, timestamp_message
from broker.service.translate.json_values import value_json
from broker.service.translate.new_jobs import NewJobReader

_MAX_ITEMS = 1000
# JSON of a request beyond this is checked in a thread: the loop carries everybody's heartbeats.
_BYTES_FOR_A_THREAD = 256 * 1024
_MAX_RESULT_BYTES = 1024 * 1024
_MAX_CHECKPOINT_BYTES = 64 * 1024
# Traces quote conditions: a thousand of them could pass the 3 MiB that a message may have.
_MAX_TRACES_BYTES = 2 * 1024 * 1024

# Copied into each answer.
_COMPLETED = {outcome: pb.Completed(outcome=pb.LeaseOutcome.ValueType(outcome)) for outcome in Outcome}

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

    @reports_errors
    async def Enqueue(self, request: pb.EnqueueRequest, context: _Context) -> pb.EnqueueResponse:
        """All jobs of the call, or none."""
        if request.ByteSize() > _BYTES_FOR_A_THREAD:
            jobs = await asyncio.to_thread(self._new_jobs.read, request.jobs)
        else:
            jobs = self._new_jobs.read(request.jobs)
        response = pb.EnqueueResponse()
        for job_id, created in await self._lifecycle.enqueue(jobs):
            response.jobs.add(job_id=job_id, created=created)
        return response

    @reports_stream_errors
    async def Lease(
        self, requests: AsyncIterator[pb.LeaseRequest], context: _Context
    ) -> AsyncGenerator[pb.LeaseResponse, None]:
        """Leases, as they become available and as the client has credits."""
        async for response in serve_stream(
            requests, context.peer(), self._dispatcher, self._codec, self._closing
        ):
            yield response

    @reports_errors
    async def Extend(self, request: pb.ExtendRequest, context: _Context) -> pb.ExtendResponse:
        """The heartbeat of many leases."""
        violations = _count_violations("extensions", request.extensions)
        seconds = None
        if request.HasField("lease_duration"):
            seconds = read_duration(
                request.lease_duration, "lease_duration", violations, least=SHORTEST_LEASE, most=LONGEST_LEASE
            ).total_seconds()
        if violations:
            raise InvalidArgument(*violations)
        leases: list[LeaseRef | None] = []
        checkpoints: list[str | None] = []
        errors: dict[int, str] = {}
        for index, extension in enumerate(request.extensions):
            leases.append(self._codec.read(extension.lease_token))
            checkpoints.append(None)
            try:
                checkpoints[index] = _checkpoint(extension)
            except JsonInvalid as error:
                errors[index] = f"extensions[{index}].{extension.WhichOneof('saved')}: {error}"
        found = {
            index: lease for index, lease in enumerate(leases) if lease is not None and index not in errors
        }
        wanted = list(found)
        heartbeat = Heartbeat(list(found.values()), [checkpoints[index] for index in wanted], seconds)
        answers = dict(zip(wanted, await self._lifecycle.extend(heartbeat) if wanted else (), strict=True))
        results = []
        for index in range(len(leases)):
            answer = answers.get(index)
            if index in errors:
                results.append(pb.Extended(outcome=pb.LEASE_OUTCOME_INVALID, error=errors[index]))
            elif answer is None or answer.lease is None:
                results.append(pb.Extended(outcome=pb.LEASE_OUTCOME_LOST))
            else:
                results.append(
                    pb.Extended(
                        outcome=pb.LeaseOutcome.ValueType(answer.outcome),
                        lease_expires_at=timestamp_message(answer.lease.expires_at),
                        lease_duration=duration_message(
                            timedelta(seconds=max(0.0, answer.lease.seconds_left))
                        ),
                    )
                )
        return pb.ExtendResponse(results=results)

    @reports_errors
    async def Complete(self, request: pb.CompleteRequest, context: _Context) -> pb.CompleteResponse:
        """Attempts that succeeded."""
        _check_count("completions", request.completions)
        results: list[Result] = []
        wanted: list[int] = []
        answers = [_COMPLETED[Outcome.LOST]] * len(request.completions)
        for index, completion in enumerate(request.completions):
            lease = self._codec.read(completion.lease_token)
            if lease is None:
                continue
            try:
                results.append(Result(lease, _result(completion)))
                wanted.append(index)
            except JsonInvalid as error:
                field = completion.WhichOneof("output")
                answers[index] = pb.Completed(
                    outcome=pb.LEASE_OUTCOME_INVALID, error=f"completions[{index}].{field}: {error}"
                )
        if results:
            for index, outcome in zip(wanted, await self._lifecycle.complete(results), strict=True):
                answers[index] = _COMPLETED[outcome]
        return pb.CompleteResponse(results=answers)

    @reports_errors
    async def Fail(self, request: pb.FailRequest, context: _Context) -> pb.FailResponse:
        """Attempts that failed: facts in, decisions out; beyond 2 MiB of them without their traces, which the events keep."""
        _check_count("attempts", request.attempts)
        failed: list[FailedResult] = []
        wanted: list[int] = []
        for index, attempt in enumerate(request.attempts):
            lease = self._codec.read(attempt.lease_token)
            if lease is not None:
                failed.append(FailedResult(lease, Reported(*read_failure(attempt.failure))))
                wanted.append(index)
        answers = [pb.Failed(outcome=pb.LEASE_OUTCOME_LOST) for _ in request.attempts]
        room = _MAX_TRACES_BYTES if request.trace else 0
        if failed:
            for index, answer in zip(wanted, await self._lifecycle.fail(failed), strict=True):
                answers[index] = pb.Failed(outcome=pb.LeaseOutcome.ValueType(answer.outcome))
                if answer.decision is not None:
                    answers[index].decision.CopyFrom(
                        decision_message(answer.decision, answer.available_at, with_trace=room > 0)
                    )
                    room -= answers[index].decision.ByteSize()
        return pb.FailResponse(results=answers)

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


def _count_violations(field: str, items: Sequence[object]) -> list[Violation]:
    if 1 <= len(items) <= _MAX_ITEMS:
        return []
    return [Violation(field, f"must be 1 to {_MAX_ITEMS}, not {len(items)}")]


def _check_count(field: str, items: Sequence[object]) -> None:
    violations = _count_violations(field, items)
    if violations:
        raise InvalidArgument(*violations)


def _result(completion: pb.Completion) -> str:
    text = completion.result_json
    if text or completion.HasField("result_json"):
        check_json(text, _MAX_RESULT_BYTES)
        return text
    return value_json(completion.result, _MAX_RESULT_BYTES) if completion.HasField("result") else "null"


def _checkpoint(extension: pb.Extension) -> str | None:
    match extension.WhichOneof("saved"):
        case "checkpoint_json":
            check_json(extension.checkpoint_json, _MAX_CHECKPOINT_BYTES)
            return extension.checkpoint_json
        case "checkpoint":
            return value_json(extension.checkpoint, _MAX_CHECKPOINT_BYTES)
        case _:
            return None
