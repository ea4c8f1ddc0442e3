"""`queue`, `jobs` and `job`: where jobs stand.

Must not change any.
"""

from typing import Any

import click
from reprise.v1.job_pb2 import JOB_STATUS_DONE, JOB_VIEW_FULL, Job, JobStatus
from reprise.v1.queue_service_pb2 import GetJobRequest, JobFilter, ListJobsRequest
from reprise.v1.retry_pb2 import Jitter

from broker.cli import options
from broker.cli.connection import Broker, take, with_broker
from broker.cli.output import (
    Column,
    Span,
    as_json,
    instant,
    length_of,
    note_more,
    one_line,
    pretty_json,
    print_block,
    print_fields,
    print_json,
    print_table,
    words_for,
)
from broker.cli.parameters import ID, EnumType, LabelType, short_name
from broker.cli.wording import STATUS_STYLES, checks_in_words, decision_in_words, failure_in_words

_PREFIX = "JOB_STATUS_"

_execution = click.option("--execution", type=ID, help="Only jobs of this execution.")
_statuses = click.option(
    "--status",
    "statuses",
    type=EnumType(JobStatus.DESCRIPTOR, _PREFIX),
    multiple=True,
    help="Only these; repeatable.",
)
_queue = click.option("--queue", "queue_name", default="", help="Only jobs of this queue.")
_kind = click.option("--kind", default="", help="Only jobs of this kind.")


@click.command()
@_execution
@_statuses
@_queue
@options.limit
@options.json_wanted
@with_broker
def queue(
    broker: Broker,
    execution: int | None,
    statuses: tuple[str, ...],
    queue_name: str,
    limit: int,
    json_wanted: bool,
) -> None:
    """Show jobs as rows of the queue, newest first: where each stands, and when it may run next.

    The columns, and the names in the JSON, are those of the SQL view noetl.queue.
    """
    wanted = _filter(statuses, queue_name, execution_id=execution or 0)
    found, more = _list_jobs(broker, wanted, limit)
    if json_wanted:
        print_json([_queue_row_json(one) for one in found])
    else:
        headings = (
            "queue_id",
            "execution_id",
            "node_name",
            "queue",
            "kind",
            "status",
            "attempts",
            "available_at",
        )
        print_table([Column(name) for name in headings], [_queue_row(one) for one in found])
    note_more(more)


@click.command()
@_statuses
@_queue
@_kind
@_execution
@click.option(
    "--label", "labels", type=LabelType(), multiple=True, help="Only jobs with this label; repeatable."
)
@options.limit
@options.json_wanted
@with_broker
def jobs(
    broker: Broker,
    statuses: tuple[str, ...],
    queue_name: str,
    kind: str,
    execution: int | None,
    labels: tuple[tuple[str, str], ...],
    limit: int,
    json_wanted: bool,
) -> None:
    """List jobs, newest first, with their last failure."""
    wanted = _filter(statuses, queue_name, kind=kind, execution_id=execution or 0, labels=dict(labels))
    found, more = _list_jobs(broker, wanted, limit)
    if json_wanted:
        print_json([as_json(one) for one in found])
    else:
        headings = ("job_id", "queue", "kind", "status", "attempts", "created_at", "worker_id")
        columns = [*(Column(name) for name in headings), Column("last_failure", prose=True)]
        print_table(columns, [_job_row(one) for one in found])
    note_more(more)


@click.command()
@click.argument("job_id", metavar="ID", type=ID)
@options.json_wanted
@with_broker
def job(broker: Broker, job_id: int, json_wanted: bool) -> None:
    """Show one job in full: input, result, policy, last failure, and how the decision on it came about.

    The earlier decisions are in its history: reprise events --job ID.
    """
    found = broker.call(broker.queues.GetJob, GetJobRequest(job_id=job_id, view=JOB_VIEW_FULL)).job
    if json_wanted:
        print_json(as_json(found))
        return
    print_fields(_fields(found))
    print_block("checks of the last decision", checks_in_words(found.last_decision))
    print_block("input", pretty_json(found.input_json))
    print_block("result", pretty_json(found.result_json))
    print_block("output and stack trace of the last failure", found.last_failure.stack_trace)


def _filter(statuses: tuple[str, ...], queue_name: str, **more: Any) -> JobFilter:
    chosen = [JobStatus.Value(_PREFIX + status.upper()) for status in statuses]
    return JobFilter(statuses=chosen, queue=queue_name, **more)


def _list_jobs(broker: Broker, wanted: JobFilter, limit: int) -> tuple[list[Job], bool]:
    def fetch(size: int, token: str) -> tuple[list[Job], str]:
        request = ListJobsRequest(filter=wanted, page_size=size, page_token=token)
        answer = broker.call(broker.queues.ListJobs, request)
        return list(answer.jobs), answer.next_page_token

    return take(limit, fetch)


def _status(job: Job) -> Span:
    name = short_name(JobStatus.Name(job.status), _PREFIX)
    return Span(name, STATUS_STYLES.get(name, ""))


def _last_failure(job: Job) -> Span:
    """Of a job that is done it is past."""
    return Span(failure_in_words(job.last_failure), "dim" if job.status == JOB_STATUS_DONE else "red")


def _attempts(job: Job) -> Span:
    return Span(f"{job.attempts}/{job.max_attempts}")


def _queue_row(job: Job) -> tuple[Span, ...]:
    return (
        Span(str(job.job_id)),
        Span(str(job.execution_id or "")),
        Span(job.step, "bold"),
        Span(job.queue),
        Span(job.kind),
        _status(job),
        _attempts(job),
        Span(instant(job.available_at)),
    )


def _queue_row_json(job: Job) -> dict[str, Any]:
    document = as_json(job)
    return {
        "queue_id": document["job_id"],
        "execution_id": document["execution_id"],
        "node_name": document["step"],
        "queue": document["queue"],
        "kind": document["kind"],
        "status": _status(job).text,
        "priority": document["priority"],
        "attempts": document["attempts"],
        "max_attempts": document["max_attempts"],
        "available_at": document.get("available_at"),
        "lease_until": document.get("lease_expires_at"),
        "created_at": document.get("created_at"),
        "finished_at": document.get("finished_at"),
    }


def _job_row(job: Job) -> tuple[Span, ...]:
    return (
        Span(str(job.job_id)),
        Span(job.queue),
        Span(job.kind),
        _status(job),
        _attempts(job),
        Span(instant(job.created_at)),
        Span(one_line(job.worker_id)),
        _last_failure(job),
    )


def _policy(job: Job) -> str:
    """When a retry comes, the policy's defaults filled in; empty without a policy."""
    if not job.HasField("retry"):
        return ""
    policy = job.retry
    first = words_for(policy.initial_delay.ToTimedelta().total_seconds())
    longest = words_for(policy.max_delay.ToTimedelta().total_seconds())
    jitter = short_name(Jitter.Name(policy.jitter), "JITTER_")
    growth = f"first after {first}, then times {policy.backoff_multiplier:g}, at most {longest}"
    return f"{policy.max_attempts} attempts, {growth}, jitter {jitter}"


def _fields(job: Job) -> list[tuple[str, Span]]:
    plain = {
        "priority": str(job.priority or ""),
        "created_at": instant(job.created_at),
        "available_at": instant(job.available_at),
        "lease_expires_at": instant(job.lease_expires_at),
        "finished_at": instant(job.finished_at),
        "worker_id": job.worker_id,
        "execution_id": str(job.execution_id or ""),
        "step": job.step,
        "dependency": job.dependency,
        "held_by": job.held_by,
        "attempt_timeout": length_of(job.attempt_timeout),
        "labels": ", ".join(f"{name}={text}" for name, text in sorted(job.labels.items())),
        "idempotency_key": job.idempotency_key,
        "retry": _policy(job),
        "retry_when": job.retry.retry_when,
        "stop_when": job.retry.stop_when,
    }
    return [
        ("job_id", Span(str(job.job_id), "bold")),
        ("queue", Span(job.queue)),
        ("kind", Span(job.kind)),
        ("status", _status(job)),
        ("attempts", _attempts(job)),
        *((name, Span(one_line(text))) for name, text in plain.items()),
        ("last_failure", _last_failure(job)),
        ("last_decision", Span(decision_in_words(job.last_decision), "yellow")),
    ]
