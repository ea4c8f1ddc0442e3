"""Reads through gRPC, one at a time: a job, its events, lists of jobs by each filter, queues; and the two queries of people with SQL."""

import random
import time
from collections.abc import Callable, Iterator

import grpc
import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import queue_service_pb2 as pb
from reprise.v1 import queue_service_pb2_grpc
from reprise.v1.job_pb2 import JobStatus

from bench.measurement import Row, tell
from bench.report.medians import percentiles
from bench.workload import Task

_CALLS = 100
_SAMPLE = (
    "SELECT job_id, noetl.time_of(job_id) FROM noetl.job TABLESAMPLE SYSTEM (1) ORDER BY random() LIMIT 10000"
)
_EXECUTIONS = "SELECT execution_id FROM noetl.execution ORDER BY random() LIMIT 1000"
_QUEUE_QUERY = (
    "SELECT queue_id, status, attempts, max_attempts, available_at FROM noetl.queue WHERE execution_id = %s"
)
_EVENT_QUERY = """SELECT event_type, node_name, result FROM noetl.event WHERE execution_id = %s
AND event_type IN ('action_started', 'action_error', 'action_retry', 'action_completed')"""

Reads = Iterator[tuple[str, Callable[[], object]]]


def reads(queues: queue_service_pb2_grpc.QueueServiceStub, database: psycopg.Connection) -> Reads:
    """Every read by its name; each call of one takes another job, execution or page at random."""
    jobs = database.execute(_SAMPLE).fetchall()
    executions = [row[0] for row in database.execute(_EXECUTIONS).fetchall()]

    def job_id() -> int:
        return int(random.choice(jobs)[0])

    def instant() -> Timestamp:
        at = Timestamp()
        at.FromDatetime(random.choice(jobs)[1])
        return at

    def page(**fields: object) -> object:
        wanted = {name: value() if callable(value) else value for name, value in fields.items()}
        return queues.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(**wanted)))  # type: ignore[arg-type]

    yield "GetJob", lambda: queues.GetJob(pb.GetJobRequest(job_id=job_id()))
    yield "ListEvents of a job", lambda: queues.ListEvents(pb.ListEventsRequest(job_id=job_id()))
    yield (
        "ListEvents of an execution",
        lambda: queues.ListEvents(pb.ListEventsRequest(execution_id=random.choice(executions))),
    )
    yield "ListJobs", page
    filters: dict[str, object] = {
        "job_ids": lambda: [job_id() for _ in range(100)],
        "queue": "past-7",
        "kind": "kind-1",
        "execution_id": lambda: random.choice(executions),
        "dependency": "api-3",
        "failure_type": "Error1",
        "labels": {"tenant": "t10"},
        "created_after": instant,
        "created_before": instant,
    }
    for name, value in filters.items():
        yield f"ListJobs by {name}", lambda name=name, value=value: page(**{name: value})  # type: ignore[misc]
    for status in JobStatus.keys()[1:]:
        yield (
            f"ListJobs by {status}",
            lambda status=status: page(statuses=[status]),  # type: ignore[misc]
        )
    yield "ListQueues", lambda: queues.ListQueues(pb.ListQueuesRequest())
    for name, query in (("the queue of an execution", _QUEUE_QUERY), ("its events", _EVENT_QUERY)):
        yield (
            f"SQL: {name}",
            lambda query=query: database.execute(query, (random.choice(executions),)).fetchall(),  # type: ignore[misc]
        )


def measure(task: Task) -> list[Row]:
    """A row for each read."""
    rows = []
    with (
        grpc.insecure_channel(task.site.address) as channel,
        psycopg.connect(task.site.database_url, autocommit=True) as database,
    ):
        for name, read in reads(queue_service_pb2_grpc.QueueServiceStub(channel), database):
            waits = []
            for _ in range(_CALLS):
                started = time.perf_counter()
                read()
                waits.append((time.perf_counter() - started) * 1000)
            rows.append(Row("reads", "reprise", name, percentiles(waits)))
    return rows


if __name__ == "__main__":
    tell(measure(Task.from_command_line()))
