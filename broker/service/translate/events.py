"""Events as protobuf."""

from reprise.v1 import job_pb2

from broker.service.translate.instants import timestamp_message
from broker.store.execution_reads import EventRow


def event_message(event: EventRow) -> job_pb2.Event:
    """The event, with what semantics lists for its type as `result_json`."""
    return job_pb2.Event(
        event_id=event.event_id,
        job_id=event.job_id,
        execution_id=event.execution_id or 0,
        step=event.step or "",
        event_type=event.event_type,
        attempt=event.attempt,
        created_at=timestamp_message(event.created_at),
        worker_id=event.worker_id or "",
        result_json=event.result or "",
    )
