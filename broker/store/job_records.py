"""Reads what jobs are and where they stand: their bodies, their lanes, and what their events say."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from broker.store.events import EventKind
from broker.store.reader import Reader

# Bodies beyond this are not fetched for one page; the first job's always are.
_MAX_BYTES = 3 * 1024 * 1024

WAITING = frozenset({"queued", "retry"})


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which jobs: all that is not None must hold. `labels` is a JSON object; `statuses` as in noetl.queue."""

    queue: str | None = None
    kind: str | None = None
    execution_id: int | None = None
    dependency: str | None = None
    labels: str | None = None
    statuses: tuple[str, ...] | None = None
    failure_type: str | None = None


class JobRecord(NamedTuple):
    """One job as a reader sees it, in the order of the statement's columns; details are the JSON of events."""

    job_id: int
    queue: str
    kind: str
    status: str
    priority: int
    attempts: int | None  # None: it is done, see its Run
    max_attempts: int
    created_at: datetime
    available_at: datetime | None
    lease_expires_at: datetime | None
    finished_at: datetime | None  # None of a job that is done: see its Run
    execution_id: int | None
    step: str | None
    policy: str | None
    dependency: str | None
    labels: str | None
    idempotency_key: str | None
    attempt_timeout_seconds: float | None
    body_bytes: int
    fetched: bool  # False: the page is full, the following three were left out
    last_failure: str | None
    last_decision: str | None
    input: str | None  # None also where it was not asked for


class Run(NamedTuple):
    """What the plain events of a job say; `result` is that of the attempt that succeeded."""

    worker_id: str | None
    attempts: int | None
    finished_at: datetime | None
    result: str | None
    result_bytes: int


# The jobs of `ids` that meet the criteria, newest first. The latest verdict of a job that is in no lane tells dead from done:
# after a job_dead nothing follows but a redrive. The job_dead of a job that never ran holds its failure.
_RECORDS = """
WITH matched AS MATERIALIZED (
  SELECT j.job_id, j.queue, j.kind, coalesce(lane.status, CASE trouble.kind WHEN 6 THEN 'dead' ELSE 'done' END) AS status,
    j.priority, coalesce(lane.attempts, CASE trouble.kind WHEN 6 THEN trouble.attempt END) AS attempts, j.max_attempts,
    noetl.time_of(j.job_id) AS created_at, CASE WHEN lane.status <> 'leased' THEN lane.available_at END AS available_at,
    lane.lease_expires_at, CASE WHEN lane.status IS NULL AND trouble.kind = 6 THEN noetl.time_of(trouble.event_id) END AS finished_at,
    j.execution_id, j.step, j.policy_id, j.dependency, j.labels, j.idempotency_key, j.attempt_timeout_seconds,
    failure.detail AS last_failure, decision.detail AS last_decision, CASE WHEN %(full)s THEN j.input END AS input
  FROM unnest(%(ids)s::int8[]) wanted(job_id)
  CROSS JOIN LATERAL (SELECT * FROM job WHERE job.job_id = wanted.job_id OFFSET 0) j
  LEFT JOIN LATERAL noetl.lane_of(j.job_id, j.queue, j.priority) lane ON true
  LEFT JOIN LATERAL (
    SELECT event_id, kind, attempt FROM event_log e WHERE e.job_id = j.job_id AND e.kind >= 4
    ORDER BY e.event_id DESC LIMIT 1) trouble ON true
  LEFT JOIN LATERAL (
    SELECT coalesce(error, detail) AS detail FROM event_log e WHERE trouble.kind IS NOT NULL AND e.job_id = j.job_id AND e.kind >= 4
      AND (e.error IS NOT NULL OR e.kind = 4 OR e.kind = 6 AND e.attempt = 0 AND e.detail::json ->> 'error_type' IS NOT NULL)
    ORDER BY e.event_id DESC LIMIT 1) failure ON true
  LEFT JOIN LATERAL (
    SELECT detail FROM event_log e WHERE trouble.kind IS NOT NULL AND e.job_id = j.job_id AND e.kind >= 4 AND e.kind IN (5, 6)
    ORDER BY e.event_id DESC LIMIT 1) decision ON true
  WHERE (%(queue)s::text IS NULL OR j.queue = %(queue)s)
    AND (%(kind)s::text IS NULL OR j.kind = %(kind)s)
    AND (%(execution_id)s::int8 IS NULL OR j.execution_id = %(execution_id)s)
    AND (%(dependency)s::text IS NULL OR j.dependency = %(dependency)s)
    AND (%(labels)s::jsonb IS NULL OR j.labels @> %(labels)s::jsonb)
    AND (%(failure_type)s::text IS NULL OR failure.detail::json ->> 'error_type' = %(failure_type)s)
    AND (%(statuses)s::text[] IS NULL
      OR coalesce(lane.status, CASE trouble.kind WHEN 6 THEN 'dead' ELSE 'done' END) = ANY(%(statuses)s))
  ORDER BY j.job_id DESC LIMIT %(limit)s
),
measured AS (
  SELECT m.*, coalesce(octet_length(input), 0) + coalesce(octet_length(last_failure), 0) + coalesce(octet_length(last_decision), 0)
    AS body_bytes FROM matched m
),
weighed AS (
  SELECT m.*, sum(body_bytes) OVER (ORDER BY job_id DESC) <= %(max_bytes)s OR row_number() OVER (ORDER BY job_id DESC) = 1 AS fetched
  FROM measured m
)
SELECT w.job_id, queue, kind, status, priority, attempts, max_attempts, created_at, available_at, lease_expires_at, finished_at,
  execution_id, step, p.body, dependency, labels::text, idempotency_key, attempt_timeout_seconds, body_bytes::int8, fetched,
  CASE WHEN fetched THEN last_failure END, CASE WHEN fetched THEN last_decision END, CASE WHEN fetched THEN input END
FROM weighed w LEFT JOIN retry_policy p USING (policy_id)
ORDER BY w.job_id DESC
"""

_RUN_COLUMNS = """
e.job_id, e.kind, e.attempt, noetl.time_of(e.event_id), e.worker_id, coalesce(octet_length(e.detail), 0),
CASE WHEN %(full)s AND e.kind = 3 AND (sum(octet_length(e.detail)) OVER (ORDER BY e.job_id DESC, e.event_id) <= %(max_bytes)s
  OR e.job_id = (%(ids)s::int8[])[1]) THEN e.detail END
"""

# Ends that were a success, and starts: those that still run, that an end has taken along, or that have a row of their own from before
# migration 0010. The bounds leave out the partitions of other days.
_RUNS = f"""
SELECT {_RUN_COLUMNS} FROM (
  SELECT job_id, CASE kind WHEN 3 THEN 3 ELSE 2 END AS kind, attempt, event_id, worker_id, CASE kind WHEN 3 THEN detail END AS detail
  FROM event_log
  WHERE job_id = ANY(%(ids)s::int8[]) AND job_id BETWEEN %(lowest)s AND %(highest)s AND (kind IN (2, 3) OR started_id IS NOT NULL)
  UNION ALL
  SELECT job_id, 2, attempt, lease_id, worker_id, NULL FROM lease WHERE job_id = ANY(%(ids)s::int8[]) AND worker_id IS NOT NULL
) e
ORDER BY e.event_id
"""

_NO_RUN = Run(None, None, None, None, 0)


async def read_records(
    reader: Reader, job_ids: Sequence[int], criteria: Criteria, limit: int, *, full: bool
) -> list[JobRecord]:
    """Those of `job_ids` that meet the criteria, newest first, at most `limit`; with their input where `full`.

    From a record on that is not `fetched`, bodies were left out: they would not fit in one message. Raises Unavailable.
    """
    rows = await reader.rows(
        _RECORDS,
        {
            "ids": list(job_ids),
            "limit": limit,
            "full": full,
            "max_bytes": _MAX_BYTES,
            "queue": criteria.queue,
            "kind": criteria.kind,
            "execution_id": criteria.execution_id,
            "dependency": criteria.dependency,
            "labels": criteria.labels,
            "statuses": None if criteria.statuses is None else list(criteria.statuses),
            "failure_type": criteria.failure_type,
        },
    )
    return [JobRecord._make(row) for row in rows]


async def read_runs(reader: Reader, records: Sequence[JobRecord], *, full: bool) -> list[Run]:
    """The run of each record, from the first on; shorter than `records` where the results of more would not fit in one message.

    The records are in descending order of ids. Raises Unavailable.
    """
    wanted = [record.job_id for record in records if _has_run(record)]
    if not wanted:
        return [_NO_RUN] * len(records)
    arguments = {
        "full": full,
        "max_bytes": _MAX_BYTES,
        "ids": wanted,
        "lowest": wanted[-1],
        "highest": wanted[0],
    }
    runs = _collect(await reader.rows(_RUNS, arguments))
    found: list[Run] = []
    for record in records:
        run = runs.get(record.job_id, _NO_RUN)
        if full and run.result is None and run.result_bytes:
            break
        found.append(run)
    return found


def _collect(rows: Sequence[tuple[int, int, int, datetime, str | None, int, str | None]]) -> dict[int, Run]:
    """What events, oldest first, say of their jobs: the last worker, and how a job that is done has ended."""
    runs: dict[int, Run] = {}
    for job_id, kind, attempt, at, worker_id, size, result in rows:
        run = runs.get(job_id, _NO_RUN)
        if kind == EventKind.ACTION_STARTED:
            runs[job_id] = run._replace(worker_id=worker_id)
        else:
            runs[job_id] = Run(worker_id or run.worker_id, attempt, at, result, size)
    return runs


def _has_run(record: JobRecord) -> bool:
    return record.status == "done" or bool(record.attempts)
