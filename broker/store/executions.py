"""Writes executions: starts them, locks them, records what their steps did, ends them.

The row of an execution is its lock: whoever advances it holds that row, taken in the order of ids, and reads in a new statement.
Must not decide what follows: `broker.playbook` does.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from broker.job import NewJob
from broker.store.events import EventKind
from broker.store.session import Session

_PLAYBOOK = """
SELECT version, name, body FROM playbook WHERE path = %b::text AND (%b::int4 = 0 OR version = %b::int4)
ORDER BY version DESC LIMIT 1
"""

# A new version of a playbook, unless the newest has the same text. Callers of one path wait for each other.
_LOCK_PATH = "SELECT pg_advisory_xact_lock(hashtextextended('playbook ' || %b::text, 0))"
_NEWEST = "SELECT version, body, created_at FROM playbook WHERE path = %b::text ORDER BY version DESC LIMIT 1"
_ADD_PLAYBOOK = """
INSERT INTO playbook (path, version, name, body, created_at) VALUES (%b::text, %b::int4, %b::text, %b::text, noetl.clock())
RETURNING created_at
"""

_START = """
INSERT INTO execution (execution_id, path, version, status, workload, given, idempotency_key)
VALUES (noetl.next_id(), %b::text, %b::int4, 'running', %b::text, %b::text, %b::text)
ON CONFLICT (path, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING execution_id
"""

# The execution that an idempotency key stands for, and whether it was started with the same workload. Only one index has keys in their
# order: the planner takes none that would go through all executions of the path.
_STARTED_BEFORE = """
SELECT execution_id, version, given::jsonb = %b::jsonb FROM execution
WHERE path = %b::text AND idempotency_key BETWEEN %b::text AND %b::text ORDER BY idempotency_key LIMIT 1
"""

# The bounds leave out the partitions of other days.
_EXECUTIONS_OF = """
SELECT DISTINCT j.execution_id FROM unnest(%b::int8[]) x(job_id)
CROSS JOIN LATERAL (
  SELECT execution_id FROM job WHERE job.job_id = x.job_id AND job.job_id BETWEEN %b::int8 AND %b::int8 OFFSET 0) j
WHERE j.execution_id IS NOT NULL
"""

_LOCK = """
SELECT execution_id, path, version, status, workload FROM execution
WHERE execution_id = ANY(%b::int8[]) ORDER BY execution_id FOR UPDATE
"""

_STARTED_STEPS = "SELECT execution_id, step, job_id FROM execution_step WHERE execution_id = ANY(%b::int8[])"

# What ended the steps of executions: results, and the events of the steps themselves. Only short results come along, so that
# what is read at the end of each step does not grow by all the results before it; the length is known without reading the rest.
_STEP_ENDS = """
SELECT execution_id, step, kind, event_id, octet_length(detail),
  CASE WHEN kind = 13 OR octet_length(detail) <= 1024 THEN detail END
FROM event_log WHERE execution_id = ANY(%b::int8[]) AND kind IN (3, 12, 13) ORDER BY event_id
"""

# The longer results, by the events that hold them.
_DETAILS = """
SELECT event_id, detail FROM event_log WHERE execution_id = %b::int8 AND event_id = ANY(%b::int8[])
"""

_RECORD = """
WITH t AS MATERIALIZED (SELECT noetl.next_id() AS base)
INSERT INTO event_log (event_id, job_id, execution_id, kind, attempt, step, detail, max_attempts)
SELECT (SELECT base FROM t) + position, job_id, execution_id, kind, 0, step, detail, max_attempts
FROM unnest(%b::int8[], %b::int8[], %b::int2[], %b::text[], %b::text[], %b::int2[]) WITH ORDINALITY
  x(execution_id, job_id, kind, step, detail, max_attempts, position)
"""

# The steps that have started; the key keeps two brokers from starting one twice.
_START_STEPS = """
INSERT INTO execution_step (execution_id, step, job_id)
SELECT * FROM unnest(%b::int8[], %b::text[], %b::int8[]) x(execution_id, step, job_id) ORDER BY 1, 2
"""

# A job that is dead from the start: a body without a place in any lane.
_ADD_DEAD_JOB = """
INSERT INTO job (job_id, execution_id, priority, max_attempts, queue, kind, step, input, attempt_timeout_seconds, dependency)
VALUES (noetl.next_id(), %b::int8, %b::int2, %b::int2, %b::text, %b::text, %b::text, %b::text, %b::float8, %b::text)
RETURNING job_id
"""

# Only running executions end, and only those are in the index that finds them.
_END = """
UPDATE execution SET status = %b::text, finished_at = noetl.clock(), result = %b::text, failed_step = %b::text, failure = %b::text
WHERE execution_id = %b::int8 AND status = 'running'
"""


# One block of ids holds 4096.
_EVENTS_PER_STATEMENT = 2000


class StoredPlaybook(NamedTuple):
    """One version of a playbook, its YAML as registered."""

    version: int
    name: str
    body: str


class RegisteredVersion(NamedTuple):
    """A version of a playbook, and whether it was made just now."""

    version: int
    created_at: datetime
    created: bool


class StartedBefore(NamedTuple):
    """An execution that an idempotency key stands for."""

    execution_id: int
    version: int
    same_workload: bool


class LockedExecution(NamedTuple):
    """An execution whose row this transaction holds; `workload` is a JSON object."""

    execution_id: int
    path: str
    version: int
    status: str
    workload: str


class StepEnd(NamedTuple):
    """An event that tells how a step ended: ACTION_COMPLETED (its result), STEP_COMPLETED or STEP_FAILED.

    `detail` is None where there is none, and where it is a long result: `details` reads those.
    """

    execution_id: int
    step: str
    kind: int
    event_id: int
    detail_bytes: int | None
    detail: str | None


class StepEvent(NamedTuple):
    """An event to be recorded; `detail` is JSON. Without a job it is the execution's or the step's own."""

    execution_id: int
    kind: EventKind
    step: str | None = None
    detail: str | None = None
    job_id: int = 0
    max_attempts: int | None = None


async def playbook(session: Session, path: str, version: int) -> StoredPlaybook | None:
    """The version asked for, 0 for the newest, or None. Raises Unavailable."""
    row = await session.row(_PLAYBOOK, (path, version, version))
    return None if row is None else StoredPlaybook._make(row)


async def register(session: Session, path: str, name: str, body: str) -> RegisteredVersion:
    """The version of this text; a new one unless the newest has it already. Raises Unavailable.

    To be run in a transaction: callers of one path wait for each other until it ends.
    """
    await session.rows(_LOCK_PATH, (path,))
    newest = await session.row(_NEWEST, (path,))
    if newest is not None and newest[1] == body:
        return RegisteredVersion(newest[0], newest[2], created=False)
    version = 1 if newest is None else newest[0] + 1
    row = await session.row(_ADD_PLAYBOOK, (path, version, name, body))
    assert row is not None
    return RegisteredVersion(version, row[0], created=True)


async def start(
    session: Session, path: str, version: int, workload: str, given: str, key: str | None
) -> int | StartedBefore:
    """The id of a new execution, or the one that `key` stands for. Raises Unavailable."""
    while True:
        row = await session.row(_START, (path, version, workload, given, key))
        if row is not None:
            return int(row[0])
        before = await session.row(_STARTED_BEFORE, (given, path, key, key))
        if before is not None:
            return StartedBefore._make(before)
        # The key was freed between the two statements: now it can be taken.


async def executions_of(session: Session, job_ids: Iterable[int]) -> list[int]:
    """The executions that jobs belong to. Raises Unavailable."""
    ids = list(job_ids)
    bounds = (min(ids, default=0), max(ids, default=0))
    return [row[0] for row in await session.rows(_EXECUTIONS_OF, (ids, *bounds))]


async def lock(session: Session, execution_ids: Iterable[int]) -> dict[int, LockedExecution]:
    """The executions, by id, held until the transaction ends. Raises Unavailable."""
    rows = await session.rows(_LOCK, (sorted(execution_ids),))
    return {row[0]: LockedExecution._make(row) for row in rows}


async def started_steps(session: Session, execution_ids: Sequence[int]) -> list[tuple[int, str, int]]:
    """(execution_id, step, job_id) of every step that was started; job_id 0 for a router. Raises Unavailable."""
    return [(row[0], row[1], row[2]) for row in await session.rows(_STARTED_STEPS, (list(execution_ids),))]


async def step_ends(session: Session, execution_ids: Sequence[int]) -> list[StepEnd]:
    """How steps of executions ended, oldest first. Raises Unavailable."""
    return [StepEnd._make(row) for row in await session.rows(_STEP_ENDS, (list(execution_ids),))]


async def details(session: Session, execution_id: int, event_ids: Sequence[int]) -> dict[int, str]:
    """The details of events of an execution, by event_id. Raises Unavailable."""
    return {row[0]: row[1] for row in await session.rows(_DETAILS, (execution_id, list(event_ids)))}


async def record(session: Session, events: Sequence[StepEvent]) -> None:
    """Adds events, in order. Raises Unavailable."""
    for start in range(0, len(events), _EVENTS_PER_STATEMENT):
        portion = events[start : start + _EVENTS_PER_STATEMENT]
        await session.rows(
            _RECORD,
            (
                [event.execution_id for event in portion],
                [event.job_id for event in portion],
                [int(event.kind) for event in portion],
                [event.step for event in portion],
                [event.detail for event in portion],
                [event.max_attempts for event in portion],
            ),
        )


async def start_steps(session: Session, steps: Sequence[tuple[int, str, int]]) -> None:
    """Marks steps, given as (execution_id, step, job_id), as started. Raises Unavailable."""
    if steps:
        execution_ids, names, job_ids = zip(*steps, strict=True)
        await session.rows(_START_STEPS, (list(execution_ids), list(names), list(job_ids)))


async def add_dead_job(session: Session, job: NewJob) -> int:
    """The id of a job that will never run. Raises Unavailable."""
    row = await session.row(
        _ADD_DEAD_JOB,
        (
            job.execution_id,
            job.priority,
            job.max_attempts,
            job.queue,
            job.kind,
            job.step,
            job.input,
            job.attempt_timeout_seconds,
            job.dependency,
        ),
    )
    assert row is not None
    return int(row[0])


async def end(
    session: Session,
    execution_id: int,
    status: str,
    *,
    result: str | None = None,
    failed_step: str | None = None,
    failure: str | None = None,
) -> None:
    """Ends a running execution as completed, failed or cancelled; `result` and `failure` are JSON. Raises Unavailable."""
    await session.rows(_END, (status, result, failed_step, failure, execution_id))
