"""The reading half of PlaybookService: requests to queries, rows to messages."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from reprise.v1 import job_pb2
from reprise.v1 import playbook_service_pb2 as pb

from broker.errors import NotFound, Violation, WrongState, refuse
from broker.json_text import JsonInvalid
from broker.service.pages import (
    MAX_PAGE_BYTES,
    fitting,
    int_position_of,
    page_size_of,
    page_token,
    text_position_of,
)
from broker.service.translate.events import event_message
from broker.service.translate.instants import timestamp_message
from broker.service.translate.jobs import is_full
from broker.service.translate.json_values import value_message
from broker.store import execution_reads as store
from broker.store.execution_reads import ExecutionRow, PlaybookRow, StepRow
from broker.store.reader import Reader

_MAX_SIGNED = 2**63


class PlaybookReads:
    """Answers what is read of playbooks and executions. Every method raises Unavailable when the database is away."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get_playbook(self, request: pb.GetPlaybookRequest) -> pb.GetPlaybookResponse:
        """One version with its text. Raises NotFound, InvalidArgument."""
        violations: list[Violation] = []
        _check_path(request.path, violations, required=True)
        refuse(violations)
        row = None
        if request.version >= 0:
            row = await store.playbook_version(self._reader, request.path, request.version)
        if row is None:
            wanted = f"version {request.version} of playbook" if request.version else "playbook"
            raise NotFound(f"no {wanted} {request.path!r}", "PLAYBOOK_NOT_FOUND")
        return pb.GetPlaybookResponse(playbook=_playbook_message(row))

    async def list_playbooks(self, request: pb.ListPlaybooksRequest) -> pb.ListPlaybooksResponse:
        """A page of the newest versions, by path. Raises InvalidArgument."""
        violations: list[Violation] = []
        size = page_size_of(request, violations)
        after = text_position_of(request, violations) or ""
        refuse(violations)
        rows = await store.newest_playbooks(self._reader, after, size + 1)
        more = rows[size - 1].path if len(rows) > size else None
        return pb.ListPlaybooksResponse(
            playbooks=[_playbook_message(row) for row in rows[:size]],
            next_page_token=page_token(request, more),
        )

    async def get_execution(self, request: pb.GetExecutionRequest) -> pb.GetExecutionResponse:
        """One execution with its steps. Raises NotFound, InvalidArgument, WrongState where its values do not fit in one message."""
        violations: list[Violation] = []
        full = is_full(request.view, violations)
        refuse(violations)
        return pb.GetExecutionResponse(execution=await self.execution(request.execution_id, full=full))

    async def execution(self, execution_id: int, *, full: bool) -> pb.Execution:
        """One execution with its steps, with workload and result where `full`.

        Raises NotFound, WrongState where workload and result do not fit in one message.
        """
        row = None
        if 0 < execution_id < _MAX_SIGNED:
            row = await store.execution(self._reader, execution_id, full=full)
        if row is None:
            raise NotFound(f"no execution {execution_id}", "EXECUTION_NOT_FOUND")
        try:
            message = _execution_message(row)
        except JsonInvalid as error:
            raise _does_not_fit(execution_id) from error
        message.steps.extend(_step_message(step) for step in await store.steps(self._reader, execution_id))
        if message.ByteSize() > MAX_PAGE_BYTES:
            raise _does_not_fit(execution_id)
        return message

    async def list_executions(self, request: pb.ListExecutionsRequest) -> pb.ListExecutionsResponse:
        """A page of executions, newest first. Raises InvalidArgument."""
        violations: list[Violation] = []
        _check_path(request.path, violations, required=False)
        statuses = _statuses(request.statuses, violations)
        size = page_size_of(request, violations)
        below = int_position_of(request, violations)
        refuse(violations)
        rows = await store.executions(self._reader, request.path, statuses, below, size + 1)
        executions = [_execution_message(row) for row in rows[:size]]
        count = fitting(executions)
        more = rows[count - 1].execution_id if len(rows) > count else None
        return pb.ListExecutionsResponse(
            executions=executions[:count], next_page_token=page_token(request, more)
        )

    async def events_after(
        self, execution_id: int, after: int, known: Collection[int], limit: int
    ) -> list[job_pb2.Event]:
        """Events of an execution behind an id, oldest first, without those that are known."""
        rows = await store.events_after(self._reader, execution_id, after, known, limit)
        return [event_message(row) for row in rows]


def _does_not_fit(execution_id: int) -> WrongState:
    return WrongState(
        f"execution {execution_id}: workload and result do not fit in one message; "
        "the event execution_completed has the result as text",
        "TOO_LARGE",
    )


def _check_path(path: str, violations: list[Violation], *, required: bool) -> None:
    if required and not path:
        violations.append(Violation("path", "is required"))
    if "\0" in path:
        violations.append(Violation("path", "must be without NUL"))


def _statuses(wanted: Sequence[int], violations: list[Violation]) -> list[str] | None:
    """The names in the database of the statuses asked for, None for all; one violation more for each that is not there."""
    known = pb.ExecutionStatus.DESCRIPTOR.values_by_number
    names = []
    for index, number in enumerate(wanted):
        if number == pb.EXECUTION_STATUS_UNSPECIFIED or number not in known:
            violations.append(Violation(f"statuses[{index}]", f"there is no status {number}"))
            continue
        names.append(known[number].name.removeprefix("EXECUTION_STATUS_").lower())
    return names or None


def _playbook_message(row: PlaybookRow) -> pb.Playbook:
    return pb.Playbook(
        path=row.path,
        version=row.version,
        name=row.name,
        yaml=row.body,
        created_at=timestamp_message(row.created_at),
    )


def _execution_message(row: ExecutionRow) -> pb.Execution:
    message = pb.Execution(
        execution_id=row.execution_id,
        path=row.path,
        version=row.version,
        status=pb.ExecutionStatus.Value(f"EXECUTION_STATUS_{row.status.upper()}"),
        started_at=timestamp_message(row.started_at),
        failed_step=row.failed_step or "",
    )
    if row.finished_at is not None:
        message.finished_at.CopyFrom(timestamp_message(row.finished_at))
    if row.failure is not None:
        members: dict[str, Any] = json.loads(row.failure)
        message.failure.CopyFrom(
            job_pb2.Failure(
                message=members.get("error", ""),
                type=members.get("error_type", ""),
                status_code=members.get("status_code"),
            )
        )
    if row.workload is not None:
        message.workload.CopyFrom(value_message(row.workload).struct_value)
    if row.result is not None:
        message.result.CopyFrom(value_message(row.result))
    return message


def _step_message(row: StepRow) -> pb.StepState:
    message = pb.StepState(
        step=row.step,
        job_id=row.job_id,
        status=(
            job_pb2.JOB_STATUS_UNSPECIFIED
            if row.status is None
            else job_pb2.JobStatus.Value(f"JOB_STATUS_{row.status.upper()}")
        ),
        attempts=row.attempts,
        max_attempts=row.max_attempts,
    )
    if row.available_at is not None:
        message.available_at.CopyFrom(timestamp_message(row.available_at))
    return message
