"""Reads what jobs are and where they stand: their bodies, their lanes, and what their events say.

Failures and verdicts are found by the index of troubles. Who worked on a job, and the result of one that is done, stand in plain
events, which only a block range index finds: one pass over it takes about a millisecond per million jobs, however many ids it is
asked for, plus what lies between them. So each pass takes all ids that lie close together, and a page has as many passes as fit in
`BUDGET_SECONDS`: jobs whose ids are far apart may make it shorter.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from broker.store.events import EventKind
from broker.store.reader import Reader

# No pass is begun later than this; the rest is left to the next page.
BUDGET_SECONDS = 0.03
# Jobs from the first to the last of one pass: their events are read in 10 ms.
_JOBS_PER_PASS = 5_000
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
# after a job_dead nothing follows but a redrive.
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
    SELECT detail FROM event_log e WHERE trouble.kind IS NOT NULL AND e.job_id = j.job_id AND e.kind >= 4 AND e.kind = 4
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

# Ids that lie close together, in one pass. The sum keeps the list out of the index condition: with it, each id would be a pass.
_RUNS_BETWEEN = f"""
SELECT {_RUN_COLUMNS} FROM event_log e
WHERE e.job_id BETWEEN %(lowest)s AND %(highest)s AND e.kind IN (2, 3) AND e.job_id + 0 = ANY(%(ids)s::int8[])
ORDER BY e.event_id
"""

# How far down a pass from `highest` goes.
_LOWEST_IN_REACH = """
SELECT min(job_id) FROM (SELECT job_id FROM job WHERE job_id <= %(highest)s ORDER BY job_id DESC LIMIT %(jobs)s) below
"""

_RUNS_OF_EXECUTION = f"""
SELECT {_RUN_COLUMNS} FROM event_log e
WHERE e.execution_id = %(execution_id)s AND e.kind IN (2, 3) AND e.job_id = ANY(%(ids)s::int8[])
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


async def read_runs(
    reader: Reader, records: Sequence[JobRecord], *, full: bool, execution_id: int | None = None
) -> list[Run]:
    """The run of each record, from the first on; shorter than `records` where the budget or the message's size ended it.

    The records are in descending order of ids. `execution_id`: they all belong to it. Raises Unavailable.
    """
    wanted = [record.job_id for record in records if _has_run(record)]
    arguments: dict[str, object] = {"full": full, "max_bytes": _MAX_BYTES, "execution_id": execution_id}
    if wanted and execution_id is not None:
        runs = _collect(await reader.rows(_RUNS_OF_EXECUTION, arguments | {"ids": wanted}))
        answered = len(wanted)
    else:
        runs, answered = await _read_in_passes(reader, wanted, arguments)
    known = set(wanted[:answered])
    found: list[Run] = []
    for record in records:
        if _has_run(record) and record.job_id not in known:
            break
        run = runs.get(record.job_id, _NO_RUN)
        if full and run.result is None and run.result_bytes:
            break
        found.append(run)
    return found


async def _read_in_passes(
    reader: Reader, wanted: Sequence[int], arguments: dict[str, object]
) -> tuple[dict[int, Run], int]:
    """Runs of the first of `wanted`, and of how many: as many as the budget allows, those of one pass at least."""
    clock = asyncio.get_running_loop()
    ends_at = clock.time() + BUDGET_SECONDS
    runs: dict[int, Run] = {}
    answered = 0
    while answered < len(wanted) and (answered == 0 or clock.time() < ends_at):
        highest = wanted[answered]
        ids = [highest]
        if answered + 1 < len(wanted):
            row = await reader.row(_LOWEST_IN_REACH, {"highest": highest, "jobs": _JOBS_PER_PASS})
            ids = [job_id for job_id in wanted[answered:] if row is not None and job_id >= row[0]]
        pass_ = arguments | {"ids": ids, "lowest": ids[-1], "highest": highest}
        runs |= _collect(await reader.rows(_RUNS_BETWEEN, pass_))
        answered += len(ids)
    return runs, answered


def _collect(rows: Sequence[tuple[int, int, int, datetime, str | None, int, str | None]]) -> dict[int, Run]:
    """What events, oldest first, say of their jobs: the last worker, and how a job that is done has ended."""
    runs: dict[int, Run] = {}
    for job_id, kind, attempt, at, worker_id, size, result in rows:
        run = runs.get(job_id, _NO_RUN)
        if kind == EventKind.ACTION_STARTED:
            runs[job_id] = run._replace(worker_id=worker_id)
        else:
            runs[job_id] = run._replace(attempts=attempt, finished_at=at, result=result, result_bytes=size)
    return runs


def _has_run(record: JobRecord) -> bool:
    return record.status == "done" or bool(record.attempts)
