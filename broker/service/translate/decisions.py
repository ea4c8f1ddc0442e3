"""Decisions as protobuf: as they are made, and as events have recorded them."""

from datetime import datetime

from reprise.v1 import job_pb2

from broker.lifecycle.failure_events import decision_from_detail
from broker.policy.decision import Decision, DelaySource, Reason, Verdict
from broker.service.translate.instants import write_duration, write_timestamp

_VERDICTS = {verdict: job_pb2.Decision.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
_REASONS = {reason: job_pb2.Decision.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_DELAY_SOURCES = {
    source: job_pb2.Decision.DelaySource.Value(f"DELAY_SOURCE_{source.name}") for source in DelaySource
}


class DecisionWriter:
    """Writes decisions; the same one again and again, as on attempts that failed alike, is put together twice at most."""

    def __init__(self) -> None:
        self._last: tuple[Decision, bool] | None = None
        self._fields: bytes | None = None  # of the last one, from the second time on

    def write(
        self,
        message: job_pb2.Decision,
        decision: Decision,
        available_at: datetime | None,
        *,
        with_trace: bool,
    ) -> None:
        """Makes an empty `message` the decision; `available_at` is when a retry may run, None for a verdict of dead."""
        if (decision, with_trace) != self._last:
            _write(message, decision, with_trace=with_trace)
            self._last, self._fields = (decision, with_trace), None
        else:
            if self._fields is None:
                self._fields = decision_message(decision, None, with_trace=with_trace).SerializeToString()
            message.MergeFromString(self._fields)
        if available_at is not None:
            write_timestamp(message.available_at, available_at)


def decision_message(
    decision: Decision, available_at: datetime | None, *, with_trace: bool = False
) -> job_pb2.Decision:
    """The decision as a message; `available_at` is when a retry may run, None for a verdict of dead."""
    message = job_pb2.Decision()
    _write(message, decision, with_trace=with_trace)
    if available_at is not None:
        write_timestamp(message.available_at, available_at)
    return message


def _write(message: job_pb2.Decision, decision: Decision, *, with_trace: bool) -> None:
    """Makes an empty message the decision, but for its instant."""
    message.verdict = _VERDICTS[decision.verdict]
    message.reason = _REASONS[decision.reason]
    message.attempt = decision.attempt
    message.max_attempts = decision.max_attempts
    if decision.delay is not None:
        write_duration(message.delay, decision.delay)
    if decision.delay_source is not None:
        message.delay_source = _DELAY_SOURCES[decision.delay_source]
    if with_trace:
        for step in decision.trace:
            message.trace.add(check=step.check, text=step.text, value=step.value)


def recorded_decision_message(detail: str, *, with_trace: bool = False) -> job_pb2.Decision:
    """The decision that an `action_retry` or `job_dead` event recorded; `detail` is that event's JSON."""
    decision, available_at = decision_from_detail(detail)
    return decision_message(decision, available_at, with_trace=with_trace)
