"""QueueService: the operator's plane. Translates requests into reads and what they find into messages."""

from collections.abc import Sequence
from typing import Any

import grpc
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1 import queue_service_pb2_grpc

from broker.dispatcher import Dispatcher
from broker.errors import NotFound, Violation, refuse
from broker.service.not_yet import refused
from broker.service.pages import (
    MAX_PAGE_BYTES,
    fitting,
    int_position_of,
    page_size_of,
    page_token,
)
from broker.service.status import reports_errors
from broker.service.translate.events import event_message
from broker.service.translate.instants import duration_message
from broker.service.translate.job_filters import read_job_filter
from broker.service.translate.jobs import is_full, job_message
from broker.store.event_reads import EventPage, read_execution_events, read_job_events
from broker.store.events import EVENT_KINDS
from broker.store.execution_reads import execution
from broker.store.job_pages import read_job, read_page
from broker.store.job_sources import IdRange
from broker.store.queue_reads import QueueRecord, read_queues
from broker.store.reader import Reader

_Context = grpc.aio.ServicerContext[Any, Any]


class QueueService(queue_service_pb2_grpc.QueueServiceServicer):
    """Serves what can be looked at; moving jobs is still to come."""

    def __init__(self, reader: Reader, dispatcher: Dispatcher) -> None:
        self._reader = reader
        self._dispatcher = dispatcher

    ExplainJob = refused("ExplainJob")
    CancelJobs = refused("CancelJobs")
    RedriveJobs = refused("RedriveJobs")
    RescheduleJobs = refused("RescheduleJobs")
    UpdateQueue = refused("UpdateQueue")
    ListFailureGroups = refused("ListFailureGroups")

    @reports_errors
    async def GetJob(self, request: pb.GetJobRequest, context: _Context) -> pb.GetJobResponse:
        """One job."""
        violations: list[Violation] = []
        full = is_full(request.view, violations)
        refuse(violations)
        job = await read_job(self._reader, request.job_id, full=full)
        if job is None:
            raise _no_job(request.job_id)
        return pb.GetJobResponse(job=job_message(job, full=full, max_bytes=MAX_PAGE_BYTES))

    @reports_errors
    async def ListJobs(self, request: pb.ListJobsRequest, context: _Context) -> pb.ListJobsResponse:
        """Jobs that a filter names, newest first."""
        violations: list[Violation] = []
        query = read_job_filter(request.filter, "filter", violations)
        size = page_size_of(request, violations)
        full = is_full(request.view, violations)
        below = int_position_of(request, violations)
        refuse(violations)
        within = (
            query.within if below is None else IdRange(query.within.lowest, min(below, query.within.below))
        )
        page = await read_page(self._reader, query.criteria, query.job_ids, within, size, full=full)
        jobs = [job_message(job, full=full, max_bytes=MAX_PAGE_BYTES) for job in page.jobs]
        count = fitting(jobs)
        position = page.next_below if count == len(jobs) else jobs[count - 1].job_id
        return pb.ListJobsResponse(jobs=jobs[:count], next_page_token=page_token(request, position))

    @reports_errors
    async def ListEvents(self, request: pb.ListEventsRequest, context: _Context) -> pb.ListEventsResponse:
        """The history of a job or of an execution, oldest first."""
        violations: list[Violation] = []
        kinds = _read_kinds(request, violations)
        size = page_size_of(request, violations)
        after = int_position_of(request, violations) or 0
        refuse(violations)
        page = await self._read_events(request, after, kinds, size)
        if not page.events and not after:
            await self._require_owner(request)
        events = [event_message(event) for event in page.events]
        count = fitting(events)
        is_last = page.is_last and count == len(events)
        token = page_token(request, None if is_last else events[count - 1].event_id)
        return pb.ListEventsResponse(events=events[:count], next_page_token=token)

    @reports_errors
    async def ListQueues(self, request: pb.ListQueuesRequest, context: _Context) -> pb.ListQueuesResponse:
        """Every queue and how full it is."""
        workers = self._dispatcher.workers
        queues = [
            _queue_message(queue, workers.get(queue.name, 0)) for queue in await read_queues(self._reader)
        ]
        return pb.ListQueuesResponse(queues=queues)

    async def _read_events(
        self, request: pb.ListEventsRequest, after: int, kinds: Sequence[int] | None, page_size: int
    ) -> EventPage:
        if request.job_id:
            return await read_job_events(self._reader, request.job_id, after, kinds, page_size)
        return await read_execution_events(self._reader, request.execution_id, after, kinds, page_size)

    async def _require_owner(self, request: pb.ListEventsRequest) -> None:
        """Raises NotFound where the events would belong to nothing."""
        if request.job_id:
            if await read_job(self._reader, request.job_id, full=False) is None:
                raise _no_job(request.job_id)
        elif await execution(self._reader, request.execution_id, full=False) is None:
            raise NotFound(f"no execution {request.execution_id}", "EXECUTION_NOT_FOUND")


def _read_kinds(request: pb.ListEventsRequest, violations: list[Violation]) -> list[int] | None:
    """The kinds asked for, None for all; one violation more for each that is not there, and for no owner or two."""
    if bool(request.job_id) == bool(request.execution_id):
        violations.append(Violation("job_id", "give either job_id or execution_id"))
    violations.extend(
        Violation(f"event_types[{index}]", f"there is no event type {name!r:.100}")
        for index, name in enumerate(request.event_types)
        if name not in EVENT_KINDS
    )
    return [EVENT_KINDS[name] for name in request.event_types if name in EVENT_KINDS] or None


def _no_job(job_id: int) -> NotFound:
    return NotFound(f"no job {job_id}", "JOB_NOT_FOUND")


def _queue_message(queue: QueueRecord, workers: int) -> pb.Queue:
    message = pb.Queue(
        name=queue.name,
        queued=queue.queued,
        scheduled=queue.scheduled,
        leased=queue.leased,
        retry=queue.retry,
        dead=queue.dead,
        workers=workers,
        estimated=queue.estimated,
    )
    if queue.oldest_due_age is not None:
        message.oldest_due_age.CopyFrom(duration_message(queue.oldest_due_age))
    return message
