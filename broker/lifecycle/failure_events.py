"""The details of failure events: what is kept of an error and of the decision on it, and how it is read back.

The shapes are those of the table in docs/semantics.md; a repeated Fail and the views of a job are answered from them.
"""

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson

from broker.policy.decision import Decision, DelaySource, Failure, Reason, TraceStep, Verdict, describe


def _encode(value: object) -> str:
    return orjson.dumps(value).decode()


class RecordedDecision(NamedTuple):
    """A decision with the instant it set; `available_at` is None for a verdict of dead."""

    decision: Decision
    available_at: datetime | None


def error_facts(attempt: int, failure: Failure, policy: str | None, result_left_out: str | None) -> str:
    """The JSON of an action_error but for `elapsed`: the facts of the failure and the policy in force (canonical JSON, None: one attempt).

    `result_left_out` says why a result that was reported is not kept.
    """
    members: dict[str, object] = {
        "attempt": attempt,
        "error": failure.message,
        "error_type": failure.type,
        "status_code": failure.status_code,
    }
    if failure.retry_after is not None:
        members["retry_after_seconds"] = failure.retry_after.total_seconds()
    if result_left_out is not None:
        members["result_left_out"] = result_left_out
    if failure.stack_trace:
        members["stack_trace"] = failure.stack_trace
    text = _encode(members)
    # Result and policy are JSON text already: they are put in as they are, not parsed to be written again.
    return f'{text[:-1]},"result":{failure.result_json or "null"},"policy":{policy or "null"}}}'


def error_detail(facts: str, elapsed_seconds: float) -> str:
    """The JSON of an action_error: what `error_facts` wrote, and the seconds since the job was enqueued."""
    return f'{{"elapsed":{elapsed_seconds:.3f},{facts[1:]}'


def without_elapsed(detail: str) -> str:
    """The JSON of an action_error without its first member, where that is `elapsed`: alike for attempts that failed alike, at any time."""
    start = detail.find(",") + 1 if detail.startswith('{"elapsed":') else 0
    return f"{{{detail[start:]}" if start else detail


def verdict_detail(decision: Decision) -> str:
    """The JSON of an action_retry or a job_dead; the store adds `available_at` to the former."""
    members: dict[str, object] = {
        "attempt": decision.attempt,
        "max_attempts": decision.max_attempts,
        "reason": decision.reason.value,
        "message": describe(decision),
    }
    if decision.delay is not None:
        members["retry_delay_seconds"] = decision.delay.total_seconds()
    if decision.delay_source is not None:
        members["delay_source"] = decision.delay_source.value
    members["trace"] = [[step.check, step.text, step.value] for step in decision.trace]
    return _encode(members)


def decision_from_detail(detail: str) -> RecordedDecision:
    """The decision that `verdict_detail` wrote."""
    members: dict[str, Any] = json.loads(detail)
    retried = "available_at" in members
    decision = Decision(
        verdict=Verdict.RETRY if retried else Verdict.DEAD,
        reason=Reason(members["reason"]),
        attempt=members["attempt"],
        max_attempts=members["max_attempts"],
        delay=timedelta(seconds=members["retry_delay_seconds"]) if "retry_delay_seconds" in members else None,
        delay_source=DelaySource(members["delay_source"]) if "delay_source" in members else None,
        trace=tuple(TraceStep(*step) for step in members.get("trace", ())),
    )
    return RecordedDecision(decision, datetime.fromisoformat(members["available_at"]) if retried else None)
