"""What the playbook wants done, as rows: the jobs, the events and the JSON in them. Must neither decide nor write."""

import json
from typing import assert_never

from broker.job import NewJob
from broker.playbook.progress import (
    Action,
    CompleteExecution,
    FailExecution,
    PassRouter,
    RefuseStep,
    StartStep,
)
from broker.policy.decision import Decision, Failure, Reason, Verdict, describe
from broker.policy.retry_policy import to_json
from broker.store.events import EventKind
from broker.store.executions import StepEvent


def value_of(action: Action) -> str:
    """The JSON that an action brings: an input or a result; to be written in a thread, it may be large."""
    match action:
        case StartStep():
            return json_text(action.input)
        case PassRouter() | CompleteExecution():
            return json_text(action.result)
        case RefuseStep() | FailExecution():
            return "{}"
    assert_never(action)


def failure_json(failure: Failure) -> str:
    """What an execution and its events keep of a failure: error, error_type, status_code."""
    return json_text(
        {"error": failure.message, "error_type": failure.type, "status_code": failure.status_code}
    )


def job_of(execution_id: int, action: StartStep | RefuseStep, job_input: str) -> NewJob:
    """The job of a step."""
    return NewJob(
        queue=action.queue,
        kind=action.kind,
        input=job_input,
        priority=action.priority,
        policy=None if action.retry is None else to_json(action.retry),
        max_attempts=1 if action.retry is None else action.retry.max_attempts,
        attempt_timeout_seconds=action.attempt_timeout.total_seconds(),
        dependency=action.dependency,
        execution_id=execution_id,
        step=action.step,
    )


def refusal_events(execution_id: int, job_id: int, max_attempts: int, action: RefuseStep) -> list[StepEvent]:
    """How a step ends whose job is dead before it ever ran."""
    decision = Decision(Verdict.DEAD, Reason.NOT_RENDERED, 0, max_attempts)
    detail = {
        "attempt": 0,
        "max_attempts": max_attempts,
        "reason": decision.reason.value,
        "message": describe(decision),
        "error": action.failure.message,
        "error_type": action.failure.type,
    }
    return [
        StepEvent(execution_id, EventKind.JOB_DEAD, action.step, json_text(detail), job_id, max_attempts),
        StepEvent(execution_id, EventKind.STEP_FAILED, action.step, failure_json(action.failure)),
    ]


def json_text(value: object) -> str:
    """A value as JSON in its shortest form."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
