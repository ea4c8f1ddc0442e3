"""Between the contract's messages and the worker's own values. Owns translation only: no call, no state.

Time left becomes an instant of the monotonic clock here; the timestamps of a lease are never compared with a
clock.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2

from worker.failure import Failure
from worker.job import Job
from worker.lease import Decision, Delivery, Extended, Lease, Notice, Outcome

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OUTCOMES: Final = {
    pb.LEASE_OUTCOME_OK: Outcome.OK,
    pb.LEASE_OUTCOME_LOST: Outcome.LOST,
    pb.LEASE_OUTCOME_CANCELLED: Outcome.CANCELLED,
    pb.LEASE_OUTCOME_INVALID: Outcome.INVALID,
}
_NOTICES: Final = {pb.LeaseNotice.KIND_CANCELLED: Outcome.CANCELLED, pb.LeaseNotice.KIND_LOST: Outcome.LOST}


def outcome_of(value: pb.LeaseOutcome.ValueType) -> Outcome:
    """The outcome; one that this worker does not know yet counts as INVALID."""
    return _OUTCOMES.get(value, Outcome.INVALID)


def delivery_of(message: pb.LeaseResponse, now: float) -> Delivery:
    """One message of a lease stream that arrived at `now` (monotonic seconds)."""
    return Delivery(
        leases=tuple(_lease_of(lease, now) for lease in message.leases),
        notices=tuple(
            Notice(notice.lease_token, _NOTICES[notice.kind])
            for notice in message.notices
            if notice.kind in _NOTICES
        ),
    )


def extended_of(message: pb.Extended, sent_at: float) -> Extended:
    """The answer to one heartbeat.

    Time left is counted from `sent_at` (monotonic seconds), so it is never overrated.
    """
    outcome = outcome_of(message.outcome)
    is_held = outcome in (Outcome.OK, Outcome.CANCELLED)
    left = message.lease_duration.ToTimedelta().total_seconds()
    return Extended(outcome, sent_at + left if is_held else None, message.error)


def decision_of(message: job_pb2.Decision) -> Decision:
    """The broker's decision, its enums in lower case without their prefix ("attempts_exhausted")."""
    return Decision(
        verdict=job_pb2.Decision.Verdict.Name(message.verdict).removeprefix("VERDICT_").lower(),
        reason=job_pb2.Decision.Reason.Name(message.reason).removeprefix("REASON_").lower(),
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        delay_seconds=message.delay.ToTimedelta().total_seconds() if message.HasField("delay") else None,
    )


def failure_message(failure: Failure) -> job_pb2.Failure:
    """A failure as the contract has it. Lone surrogates, which protobuf cannot carry, are replaced."""
    return job_pb2.Failure(
        message=_clean(failure.message),
        type=_clean(failure.type),
        status_code=failure.status_code,
        retry_after=duration_message(failure.retry_after),
        result_json=failure.result_json or "",
        stack_trace=_clean(failure.stack_trace),
    )


def duration_message(value: timedelta | None) -> Duration | None:
    """The duration; None stays absent."""
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message


def seconds_message(seconds: float | None) -> Duration | None:
    """The duration of so many seconds; None stays absent."""
    return None if seconds is None else duration_message(timedelta(seconds=seconds))


def _lease_of(message: job_pb2.Lease, now: float) -> Lease:
    job_input, fault = _input_of(message.input_json)
    job = Job(
        job_id=message.job_id,
        queue=message.queue,
        kind=message.kind,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        input=job_input,
        execution_id=message.execution_id,
        step=message.step,
        dependency=message.dependency,
        labels=dict(labels) if (labels := message.labels) else {},
        traceparent=message.traceparent,
        created_at=_instant_of(message.created_at) if message.HasField("created_at") else None,
        attempt_timeout=message.attempt_timeout.ToTimedelta()
        if message.HasField("attempt_timeout")
        else None,
        last_failure=_failure_of(message.last_failure) if message.HasField("last_failure") else None,
    )
    lasts = message.lease_duration
    return Lease(message.lease_token, job, now + lasts.seconds + lasts.nanos / 1e9, fault)


def _input_of(text: str) -> tuple[dict[str, Any], str]:
    """The input, and what is wrong with the text where it is empty for that."""
    try:
        parsed = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        return {}, f"input is not JSON: {error}"
    return (parsed, "") if isinstance(parsed, dict) else ({}, "input is not a JSON object")


def _instant_of(message: Timestamp) -> datetime:
    # In a fifth of the time that ToDatetime takes: every lease has one.
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _failure_of(message: job_pb2.Failure) -> Failure:
    return Failure(
        message=message.message,
        type=message.type,
        status_code=message.status_code if message.HasField("status_code") else None,
        retry_after=message.retry_after.ToTimedelta() if message.HasField("retry_after") else None,
        result_json=message.result_json or None,
        stack_trace=message.stack_trace,
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
