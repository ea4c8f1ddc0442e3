"""Reads playbooks, executions, the steps of one, and its events."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from broker.ids import IDS_PER_SECOND
from broker.store.reader import Reader

_PLAYBOOK = """
SELECT path, version, name, created_at, body FROM playbook
WHERE path = %(path)s AND (%(version)s = 0 OR version = %(version)s) ORDER BY version DESC LIMIT 1
"""

_PLAYBOOKS = """
SELECT DISTINCT ON (path) path, version, name, created_at, '' FROM playbook WHERE path > %(after)s ORDER BY path, version DESC
LIMIT %(limit)s
"""

_EXECUTIONS = """
SELECT execution_id, path, version, status, noetl.time_of(execution_id), finished_at, failed_step, failure,
  CASE WHEN %(full)s THEN workload END, CASE WHEN %(full)s THEN result END
FROM execution
WHERE (%(id)s::int8 IS NULL OR execution_id = %(id)s) AND (%(path)s = '' OR path = %(path)s)
  AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s)) AND execution_id < %(before)s
ORDER BY execution_id DESC LIMIT %(limit)s
"""

# Steps in the order they started. What a job has come to is found among the execution's own events.
_STEPS = """
SELECT e.step, s.job_id, coalesce(lane.status, CASE ended.kind WHEN 3 THEN 'done' WHEN 6 THEN 'dead' END),
  coalesce(lane.attempts, ended.attempt, 0), coalesce(j.max_attempts, 0), lane.available_at
FROM event_log e
JOIN execution_step s ON s.execution_id = e.execution_id AND s.step = e.step
LEFT JOIN job j ON j.job_id = s.job_id
LEFT JOIN LATERAL noetl.lane_of(j.job_id, j.queue, j.priority) lane ON true
LEFT JOIN LATERAL (
  SELECT x.kind, x.attempt FROM event_log x
  WHERE x.execution_id = e.execution_id AND x.job_id = s.job_id AND x.job_id <> 0 AND x.kind IN (3, 6)
  ORDER BY x.event_id DESC LIMIT 1) ended ON true
WHERE e.execution_id = %(id)s AND e.kind = 11 ORDER BY e.event_id
"""

# What action_started shows; noetl.event says the same.
STARTED_DETAIL = """
json_build_object('attempt', attempt, 'max_attempts', max_attempts, 'is_retry', attempt > 1, 'worker_id', worker_id)::text
"""

# By how much the id of the row that says an event may lie below the event's: a minute by which the clock was set back.
CLOCK_SLACK = 60 * IDS_PER_SECOND

# Events as noetl.event shows them. Not through the view, whose order would have every event sorted before the first page.
_EVENTS = f"""
SELECT event_id, job_id, execution_id, step, noetl.event_type(kind), attempt, noetl.time_of(event_id), worker_id,
  CASE kind WHEN 2 THEN {STARTED_DETAIL} ELSE detail END
FROM history
WHERE execution_id = %(id)s AND event_id > %(after)s AND row_id > %(after)s - {CLOCK_SLACK} AND event_id <> ALL(%(known)s::int8[])
ORDER BY event_id LIMIT %(limit)s
"""

_LAST_ID = 2**63 - 1


class PlaybookRow(NamedTuple):
    """A version of a playbook; `body` is empty in lists."""

    path: str
    version: int
    name: str
    created_at: datetime
    body: str


class ExecutionRow(NamedTuple):
    """One execution; workload, result and failure are JSON texts, the first two None where they were not asked for."""

    execution_id: int
    path: str
    version: int
    status: str
    started_at: datetime
    finished_at: datetime | None
    failed_step: str | None
    failure: str | None
    workload: str | None
    result: str | None


class StepRow(NamedTuple):
    """A step that was started; status is None for a router."""

    step: str
    job_id: int
    status: str | None
    attempts: int
    max_attempts: int
    available_at: datetime | None


class EventRow(NamedTuple):
    """One event as people read it; `result` is JSON text."""

    event_id: int
    job_id: int
    execution_id: int | None
    step: str | None
    event_type: str
    attempt: int
    created_at: datetime
    worker_id: str | None
    result: str | None


async def playbook_version(reader: Reader, path: str, version: int) -> PlaybookRow | None:
    """The version, 0 for the newest, with its text. Raises Unavailable."""
    row = await reader.row(_PLAYBOOK, {"path": path, "version": version})
    return None if row is None else PlaybookRow._make(row)


async def newest_playbooks(reader: Reader, after: str, limit: int) -> list[PlaybookRow]:
    """The newest version of each playbook behind the path `after`, by path. Raises Unavailable."""
    rows = await reader.rows(_PLAYBOOKS, {"after": after, "limit": limit})
    return [PlaybookRow._make(row) for row in rows]


async def execution(reader: Reader, execution_id: int, *, full: bool) -> ExecutionRow | None:
    """One execution, with workload and result where `full`. Raises Unavailable."""
    arguments = {
        "id": execution_id,
        "path": "",
        "statuses": None,
        "before": _LAST_ID,
        "limit": 1,
        "full": full,
    }
    row = await reader.row(_EXECUTIONS, arguments)
    return None if row is None else ExecutionRow._make(row)


async def executions(
    reader: Reader, path: str, statuses: Sequence[str] | None, before: int | None, limit: int
) -> list[ExecutionRow]:
    """Executions older than the id `before`, newest first; an empty path and None are no filter. Raises Unavailable."""
    arguments = {
        "id": None,
        "path": path,
        "statuses": None if statuses is None else list(statuses),
        "before": _LAST_ID if before is None else before,
        "limit": limit,
        "full": False,
    }
    return [ExecutionRow._make(row) for row in await reader.rows(_EXECUTIONS, arguments)]


async def steps(reader: Reader, execution_id: int) -> list[StepRow]:
    """The steps of an execution, in the order they started. Raises Unavailable."""
    return [StepRow._make(row) for row in await reader.rows(_STEPS, {"id": execution_id})]


async def events_after(
    reader: Reader, execution_id: int, after: int, known: Collection[int], limit: int
) -> list[EventRow]:
    """Events of an execution behind an id, oldest first, without those that are known. Raises Unavailable."""
    rows = await reader.rows(
        _EVENTS, {"id": execution_id, "after": after, "known": list(known), "limit": limit}
    )
    return [EventRow._make(row) for row in rows]
