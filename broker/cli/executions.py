"""`run`, `executions` and `cancel`: playbooks at work.

Must not know how an execution advances.
"""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import click
from reprise.v1.job_pb2 import JOB_VIEW_FULL, JobStatus
from reprise.v1.playbook_service_pb2 import (
    EXECUTION_STATUS_COMPLETED,
    CancelExecutionRequest,
    Execution,
    ExecutionStatus,
    GetExecutionRequest,
    GetPlaybookRequest,
    ListExecutionsRequest,
    StartExecutionRequest,
    StepState,
)

from broker.cli import options
from broker.cli.connection import Broker, take, with_broker
from broker.cli.near_path import telling_near_path
from broker.cli.output import (
    Column,
    Span,
    as_json,
    instant,
    note,
    note_more,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from broker.cli.parameters import ID, EnumType, JsonObjectType, SettingType, find_unknown, overlay, short_name
from broker.cli.watching import show_live, show_live_json
from broker.cli.wording import EXECUTION_STYLES, STATUS_STYLES, outcome_of

_PREFIX = "EXECUTION_STATUS_"


@click.command()
@click.argument("path")
@click.option("--version", type=click.IntRange(min=1), help="Run this version instead of the newest.")
@click.option(
    "--workload",
    type=JsonObjectType(),
    default="{}",
    help="""Overlays the playbook's: a JSON object like '{"limit": 5}', the FILE that holds one, or -.""",
)
@click.option(
    "--set",
    "settings",
    type=SettingType(),
    multiple=True,
    help="Sets one value of the workload: limit=5, db.host=h; what is JSON stays typed. Repeatable.",
)
@click.option("--key", help="Idempotency key: the same start again is the first one. Default: a new one.")
@click.option("--watch", is_flag=True, help="Show what happens until it ends; exit code 1 if it fails.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON; with --watch one line per event.")
@with_broker
def run(
    broker: Broker,
    path: str,
    version: int | None,
    workload: str,
    settings: tuple[tuple[tuple[str, ...], object], ...],
    key: str | None,
    watch: bool,
    json_wanted: bool,
) -> None:
    """Start an execution of the playbook PATH and print its id."""
    request = StartExecutionRequest(path=path, version=version or 0, idempotency_key=key or str(uuid.uuid4()))
    request.workload.update(overlay(json.loads(workload), settings))
    with telling_near_path(broker, path):
        if settings:
            _note_unknown(broker, request, [key for key, _ in settings])
        started = broker.call(broker.playbooks.StartExecution, request)
    if not watch:
        print_json(as_json(started)) if json_wanted else print_line(Span(str(started.execution_id)))
        return
    if not json_wanted:
        print_line(Span("execution "), Span(str(started.execution_id), "bold"), Span(f" of {path}"))
    try:
        show = show_live_json if json_wanted else show_live
        execution = show(broker, started.execution_id)
    except KeyboardInterrupt:
        note(f"\nno longer watching; the execution goes on: reprise events {started.execution_id} --follow")
        raise click.exceptions.Exit(1) from None
    if execution.status != EXECUTION_STATUS_COMPLETED:
        raise click.exceptions.Exit(1)


def _note_unknown(broker: Broker, request: StartExecutionRequest, keys: Sequence[tuple[str, ...]]) -> None:
    """Says which keys the playbook's workload does not have: set all the same, but mistyped, most likely."""
    from broker.playbook.parse import PlaybookInvalid, parse_playbook

    wanted = GetPlaybookRequest(path=request.path, version=request.version)
    try:
        workload = parse_playbook(broker.call(broker.playbooks.GetPlaybook, wanted).playbook.yaml).workload
    except PlaybookInvalid:  # of a broker that reads more than this command does
        return
    for key in keys:
        if unknown := find_unknown(workload, key):
            note(f"the workload of {request.path} has no {unknown}")


@click.command()
@click.argument("execution_id", metavar="[ID]", required=False, type=ID)
@click.option("--path", help="Only executions of this playbook.")
@click.option(
    "--status",
    "statuses",
    type=EnumType(ExecutionStatus.DESCRIPTOR, _PREFIX),
    multiple=True,
    help="Only these; repeatable.",
)
@options.limit
@options.json_wanted
@with_broker
def executions(
    broker: Broker,
    execution_id: int | None,
    path: str | None,
    statuses: tuple[str, ...],
    limit: int,
    json_wanted: bool,
) -> None:
    """List executions, newest first, or show the one with this ID with its steps."""
    if execution_id is not None:
        _show_execution(broker, execution_id, json_wanted)
        return

    def fetch(size: int, token: str) -> tuple[list[Execution], str]:
        request = ListExecutionsRequest(
            path=path or "",
            statuses=[ExecutionStatus.Value(_PREFIX + status.upper()) for status in statuses],
            page_size=size,
            page_token=token,
        )
        answer = broker.call(broker.playbooks.ListExecutions, request)
        return list(answer.executions), answer.next_page_token

    found, more = take(limit, fetch)
    if json_wanted:
        print_json([as_json(execution) for execution in found])
    else:
        headings = ("execution_id", "path", "version", "status", "started_at", "finished_at", "failed_step")
        print_table(
            [Column(name, number=name == "version") for name in headings],
            [_execution_row(one) for one in found],
        )
    note_more(more)


@click.command()
@click.argument("execution_id", metavar="EXECUTION_ID", type=ID)
@click.option("--reason", default="", help="Why, for its history.")
@with_broker
def cancel(broker: Broker, execution_id: int, reason: str) -> None:
    """Cancel an execution: waiting steps end at once, running ones are told to stop."""
    request = CancelExecutionRequest(execution_id=execution_id, reason=reason)
    broker.call(broker.playbooks.CancelExecution, request)
    note(f"execution {execution_id} is cancelled")


def _show_execution(broker: Broker, execution_id: int, json_wanted: bool) -> None:
    request = GetExecutionRequest(execution_id=execution_id, view=JOB_VIEW_FULL)
    execution = broker.call(broker.playbooks.GetExecution, request).execution
    if json_wanted:
        print_json(as_json(execution))
        return
    print_line(*outcome_of(execution))
    document = as_json(execution)
    print_fields(
        [
            ("playbook", Span(f"{execution.path} version {execution.version}")),
            ("started_at", Span(instant(execution.started_at))),
            ("finished_at", Span(instant(execution.finished_at))),
            ("workload", Span(_compact(document.get("workload")))),
            ("result", Span(_compact(document.get("result")))),
        ]
    )
    headings = ("step", "job_id", "status", "attempts", "available_at")
    print_table([Column(name) for name in headings], [_step_row(step) for step in execution.steps])


def _execution_row(execution: Execution) -> tuple[Span, ...]:
    status = short_name(ExecutionStatus.Name(execution.status), _PREFIX)
    return (
        Span(str(execution.execution_id)),
        Span(execution.path, "bold"),
        Span(str(execution.version)),
        Span(status, EXECUTION_STYLES.get(status, "")),
        Span(instant(execution.started_at)),
        Span(instant(execution.finished_at)),
        Span(execution.failed_step),
    )


def _step_row(step: StepState) -> tuple[Span, ...]:
    ran = step.job_id != 0
    status = short_name(JobStatus.Name(step.status), "JOB_STATUS_") if ran else "router"
    return (
        Span(step.step, "bold"),
        Span(str(step.job_id) if ran else ""),
        Span(status, STATUS_STYLES.get(status, "")),
        Span(f"{step.attempts}/{step.max_attempts}" if ran else ""),
        Span(instant(step.available_at)),
    )


def _compact(value: Any) -> str:
    return "" if value in (None, {}) else json.dumps(value, ensure_ascii=False)
