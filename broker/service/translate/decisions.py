"""Decisions as protobuf: as they are made, and as events have recorded them."""

from datetime import datetime

from reprise.v1 import job_pb2

from broker.lifecycle.failure_events import decision_from_detail
from broker.policy.decision import Decision
from broker.service.translate.instants import duration_message, timestamp_message


def decision_message(
    decision: Decision, available_at: datetime | None, *, with_trace: bool = False
) -> job_pb2.Decision:
    """The decision; `available_at` is when a retry may run, None for a verdict of dead."""
    message = job_pb2.Decision(
        verdict=job_pb2.Decision.Verdict.Value(f"VERDICT_{decision.verdict.value.upper()}"),
        reason=job_pb2.Decision.Reason.Value(f"REASON_{decision.reason.value.upper()}"),
        attempt=decision.attempt,
        max_attempts=decision.max_attempts,
    )
    if decision.delay is not None:
        message.delay.CopyFrom(duration_message(decision.delay))
    if available_at is not None:
        message.available_at.CopyFrom(timestamp_message(available_at))
    if decision.delay_source is not None:
        message.delay_source = job_pb2.Decision.DelaySource.Value(
            f"DELAY_SOURCE_{decision.delay_source.value.upper()}"
        )
    if with_trace:
        for step in decision.trace:
            message.trace.add(check=step.check, text=step.text, value=step.value)
    return message


def recorded_decision_message(detail: str, *, with_trace: bool = False) -> job_pb2.Decision:
    """The decision that an `action_retry` or `job_dead` event recorded; `detail` is that event's JSON."""
    decision, available_at = decision_from_detail(detail)
    return decision_message(decision, available_at, with_trace=with_trace)
