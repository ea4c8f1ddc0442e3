"""PlaybookService: the edge of playbooks and executions. Translates, calls a verb or a read, translates back."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Any

import grpc
from reprise.v1 import playbook_service_pb2 as pb
from reprise.v1 import playbook_service_pb2_grpc

from broker.errors import InvalidArgument, Unavailable, Violation, WrongState
from broker.json_text import JsonInvalid
from broker.lifecycle.executions import Executions
from broker.playbook.document import PlaybookInvalid
from broker.service.event_tail import EventTail
from broker.service.playbook_reads import PlaybookReads
from broker.service.status import reports_errors, reports_stream_errors
from broker.service.translate.instants import timestamp_message
from broker.service.translate.json_values import struct_json

_Context = grpc.aio.ServicerContext[Any, Any]
MAX_YAML_BYTES = 1024 * 1024
_MAX_WORKLOAD_BYTES = 1024 * 1024
_MAX_KEY_CHARACTERS = 200
_MAX_REASON_CHARACTERS = 1000
# A watch looks this often at an execution that another broker, or the leaser, may have moved on.
_WATCH_SECONDS = 0.25


class PlaybookService(playbook_service_pb2_grpc.PlaybookServiceServicer):
    """Serves playbooks and their executions; `closing` ends the watches when it is set."""

    def __init__(self, executions: Executions, reads: PlaybookReads, closing: asyncio.Event) -> None:
        self._executions = executions
        self._reads = reads
        self._closing = closing
        self._watched: dict[int, set[asyncio.Event]] = {}

    def changed(self, execution_ids: Iterable[int]) -> None:
        """Executions have new events: those who watch them look."""
        for execution_id in execution_ids:
            for watch in self._watched.get(execution_id, ()):
                watch.set()

    @reports_errors
    async def RegisterPlaybook(
        self, request: pb.RegisterPlaybookRequest, context: _Context
    ) -> pb.RegisterPlaybookResponse:
        """A new version, unless the newest is the same text; every fault of a bad one at once."""
        if len(request.yaml.encode()) > MAX_YAML_BYTES:
            raise InvalidArgument(Violation("yaml", f"is larger than {MAX_YAML_BYTES} bytes"))
        try:
            registered = await self._executions.register(request.yaml)
        except PlaybookInvalid as error:
            raise InvalidArgument(
                *(Violation("yaml", str(fault), fault.reason) for fault in error.faults)
            ) from error
        return pb.RegisterPlaybookResponse(
            playbook=pb.Playbook(
                path=registered.path,
                version=registered.version,
                name=registered.name,
                yaml=request.yaml,
                created_at=timestamp_message(registered.created_at),
            ),
            created=registered.created,
        )

    @reports_errors
    async def GetPlaybook(self, request: pb.GetPlaybookRequest, context: _Context) -> pb.GetPlaybookResponse:
        """One version of a playbook, with its text."""
        return await self._reads.get_playbook(request)

    @reports_errors
    async def ListPlaybooks(
        self, request: pb.ListPlaybooksRequest, context: _Context
    ) -> pb.ListPlaybooksResponse:
        """The newest version of each."""
        return await self._reads.list_playbooks(request)

    @reports_errors
    async def StartExecution(
        self, request: pb.StartExecutionRequest, context: _Context
    ) -> pb.StartExecutionResponse:
        """Starts a playbook, once per idempotency key."""
        violations: list[Violation] = []
        if not request.path:
            violations.append(Violation("path", "is required"))
        if "\0" in request.path:
            violations.append(Violation("path", "must be without NUL"))
        if request.version < 0:
            violations.append(Violation("version", "must be 0 (the newest) or more"))
        if len(request.idempotency_key) > _MAX_KEY_CHARACTERS or "\0" in request.idempotency_key:
            violations.append(
                Violation("idempotency_key", f"must be at most {_MAX_KEY_CHARACTERS} characters without NUL")
            )
        workload = "{}"
        try:
            workload = struct_json(request.workload, _MAX_WORKLOAD_BYTES)
        except JsonInvalid as error:
            violations.append(Violation("workload", str(error)))
        if violations:
            raise InvalidArgument(*violations)
        started = await self._executions.start(
            request.path, request.version, workload, request.idempotency_key or None
        )
        return pb.StartExecutionResponse(execution_id=started.execution_id, created=started.created)

    @reports_errors
    async def GetExecution(
        self, request: pb.GetExecutionRequest, context: _Context
    ) -> pb.GetExecutionResponse:
        """One execution with its steps."""
        return await self._reads.get_execution(request)

    @reports_errors
    async def ListExecutions(
        self, request: pb.ListExecutionsRequest, context: _Context
    ) -> pb.ListExecutionsResponse:
        """Executions, newest first."""
        return await self._reads.list_executions(request)

    @reports_errors
    async def CancelExecution(
        self, request: pb.CancelExecutionRequest, context: _Context
    ) -> pb.CancelExecutionResponse:
        """Cancels a running execution at once."""
        if len(request.reason) > _MAX_REASON_CHARACTERS or "\0" in request.reason:
            raise InvalidArgument(
                Violation("reason", f"must be at most {_MAX_REASON_CHARACTERS} characters without NUL")
            )
        await self._executions.cancel(request.execution_id, request.reason)
        return pb.CancelExecutionResponse()

    @reports_stream_errors
    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: _Context
    ) -> AsyncGenerator[pb.WatchExecutionResponse, None]:
        """The execution's events from the first one on, as they come; the execution itself at its end."""
        watch = asyncio.Event()
        self._watched.setdefault(request.execution_id, set()).add(watch)
        try:
            async for response in self._watch(request.execution_id, watch):
                yield response
        finally:
            watches = self._watched[request.execution_id]
            watches.discard(watch)
            if not watches:
                del self._watched[request.execution_id]

    async def _watch(
        self, execution_id: int, watch: asyncio.Event
    ) -> AsyncGenerator[pb.WatchExecutionResponse, None]:
        """Re-reads what it follows: order of ids is not order of commits, so what is new is what was not yet sent."""
        tail = EventTail(self._reads, execution_id)
        while True:
            watch.clear()
            execution = await self._reads.execution(execution_id, full=False)
            async for event in tail.new_events():
                yield pb.WatchExecutionResponse(event=event)
            if execution.status != pb.EXECUTION_STATUS_RUNNING:
                # It was read before the events: whatever its steps did was committed before its end, and is among them.
                yield pb.WatchExecutionResponse(execution=await self._whole(execution))
                return
            if self._closing.is_set():
                raise Unavailable("the broker shuts down")
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await watch.wait()

    async def _whole(self, execution: pb.Execution) -> pb.Execution:
        """The execution with workload and result, without them where they do not fit in one message."""
        try:
            return await self._reads.execution(execution.execution_id, full=True)
        except WrongState:
            return execution
