"""Jobs as they are shown."""

import json
from datetime import timedelta

from reprise.v1 import job_pb2

from broker.errors import Violation
from broker.policy.retry_policy import from_json
from broker.service.translate.decisions import recorded_decision_message
from broker.service.translate.failures import recorded_failure_message
from broker.service.translate.instants import duration_message, timestamp_message
from broker.service.translate.retry_policies import retry_policy_message
from broker.store.job_pages import Job


def job_message(job: Job, *, full: bool, max_bytes: int) -> job_pb2.Job:
    """The job, with input, result and the last decision's trace where `full`, in at most `max_bytes`.

    Input, result and what a failed attempt returned may be too much together: then the failure's result stays in its event.
    """
    record, run = job
    message = job_pb2.Job(
        job_id=record.job_id,
        queue=record.queue,
        kind=record.kind,
        status=status_number(record.status),
        priority=record.priority,
        attempts=record.attempts if record.attempts is not None else run.attempts or 0,
        max_attempts=record.max_attempts,
        created_at=timestamp_message(record.created_at),
        worker_id=run.worker_id or "",
        execution_id=record.execution_id or 0,
        step=record.step or "",
        dependency=record.dependency or "",
        labels=json.loads(record.labels) if record.labels else {},
        idempotency_key=record.idempotency_key or "",
    )
    _set_instants(message, job)
    if record.policy is not None:
        message.retry.CopyFrom(retry_policy_message(from_json(record.policy)))
    if record.attempt_timeout_seconds is not None:
        message.attempt_timeout.CopyFrom(duration_message(timedelta(seconds=record.attempt_timeout_seconds)))
    if record.last_failure is not None:
        message.last_failure.CopyFrom(recorded_failure_message(record.last_failure))
    if record.last_decision is not None:
        message.last_decision.CopyFrom(recorded_decision_message(record.last_decision, with_trace=full))
    if full:
        message.input_json = record.input or ""
        message.result_json = run.result or ""
    if message.ByteSize() > max_bytes:
        message.last_failure.ClearField("result_json")
    return message


def is_full(view: job_pb2.JobView.ValueType, violations: list[Violation]) -> bool:
    """Whether the view has everything. A violation more where there is no such view."""
    if view not in job_pb2.JobView.values():
        violations.append(Violation("view", f"there is no view {view}"))
    return view == job_pb2.JOB_VIEW_FULL


def status_number(status: str) -> job_pb2.JobStatus.ValueType:
    """The contract's number of a status as noetl.queue names it."""
    return job_pb2.JobStatus.Value(f"JOB_STATUS_{status.upper()}")


def _set_instants(message: job_pb2.Job, job: Job) -> None:
    record, run = job
    if record.available_at is not None:
        message.available_at.CopyFrom(timestamp_message(record.available_at))
    if record.lease_expires_at is not None:
        message.lease_expires_at.CopyFrom(timestamp_message(record.lease_expires_at))
    finished_at = run.finished_at if record.status == "done" else record.finished_at
    if finished_at is not None:
        message.finished_at.CopyFrom(timestamp_message(finished_at))
