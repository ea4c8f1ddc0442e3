"""Ends leases, or prolongs them: complete, fail, release, extend, each one statement for many calls.

Every statement finds its leases by one key, `lease_id = ANY(…)`: nothing a planner could turn round, and rows are locked in the
order of their ids. A lease that is not found is left to `spent`. Must not decide: verdicts and delays come from outside.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from broker.job import Arrival
from broker.store.arrays import Float8s, Instants, Int2s, Int8s, Texts
from broker.store.session import Session

# Ids of a statement are `base` and those behind it, in the order of its items.
_NOW = "WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),\n"

# Leases of one statement: a failure takes three of the 4096 ids of a block.
MOST_LEASES = 1000

# Done: the lease goes, the result stays as an event, which takes the start of the attempt along.
_COMPLETE = (
    _NOW
    + """
gone AS (DELETE FROM lease WHERE lease_id = ANY(%b::int8[]) RETURNING lease_id, job_id, attempt, max_attempts, worker_id),
logged AS (
  INSERT INTO event_log (event_id, job_id, execution_id, lease_id, kind, attempt, max_attempts, step, worker_id, detail, started_id)
  SELECT (SELECT base FROM t) + x.item, g.job_id, x.execution_id, g.lease_id, 3, g.attempt, g.max_attempts, x.step, g.worker_id, x.result,
    CASE WHEN g.worker_id IS NOT NULL THEN g.lease_id END
  FROM gone g JOIN unnest(%b::int8[], %b::text[], %b::int8[], %b::text[]) WITH ORDINALITY
    x(lease_id, result, execution_id, step, item) USING (lease_id)
)
SELECT array_agg(lease_id) FROM gone
"""
)

# What a decision needs to know of each lease. Elapsed is since the job was enqueued.
_FACTS = """
SELECT l.lease_id, l.job_id, l.attempt, l.returns, j.max_attempts, j.policy_id, j.queue, j.kind, j.execution_id, j.step,
  extract(epoch FROM noetl.clock() - noetl.time_of(l.job_id))::float8, coalesce(l.timeout_at <= noetl.clock(), false),
  c.reason, l.expires_at
FROM lease l
CROSS JOIN LATERAL (
  SELECT max_attempts, policy_id, queue, kind, execution_id, step FROM job WHERE job.job_id = l.job_id OFFSET 0) j
LEFT JOIN LATERAL (SELECT reason FROM cancellation WHERE cancellation.lease_id = l.lease_id OFFSET 0) c ON true
WHERE l.lease_id = ANY(%b::int8[])
"""

# Failed: the lease goes; the verdict stays as an event, which says the error too: the event before it, whose id is one lower.
# A retry waits in `delayed`, or in `ready` when it need not wait. The sweep takes only what is still expired, a broken stream only what
# was not prolonged since: both are checked in the very statement that takes the lease away, and leave no lease_id behind, as its worker
# ended nothing that it could repeat.
_FAIL = (
    _NOW
    + """
gone AS (
  DELETE FROM lease WHERE lease_id = ANY(%b::int8[]) AND (NOT %b::boolean OR expires_at <= noetl.clock())
    AND (%b::timestamptz[] IS NULL OR expires_at = ANY(%b::timestamptz[]))
  RETURNING lease_id, job_id, attempt, max_attempts, priority, queue, worker_id
),
o AS MATERIALIZED (
  SELECT g.*, x.delay_seconds, x.returns, x.error, x.verdict, x.execution_id, x.step,
    CASE WHEN %b::boolean THEN g.lease_id END AS reported_id,
    t.now + x.delay_seconds * interval '1 second' AS due_at,
    t.base + 3 * x.item AS verdict_id,
    t.base + 3 * x.item + 1 AS seq
  FROM gone g CROSS JOIN t
  JOIN unnest(%b::int8[], %b::float8[], %b::int2[], %b::text[], %b::text[], %b::int8[], %b::text[]) WITH ORDINALITY
    x(lease_id, delay_seconds, returns, error, verdict, execution_id, step, item) USING (lease_id)
),
waiting AS (
  INSERT INTO delayed (due_at, job_id, priority, attempts, returns, queue)
  SELECT due_at, job_id, priority, attempt, returns, queue FROM o WHERE delay_seconds > 0
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns)
  SELECT queue, priority, seq, job_id, attempt, returns FROM o WHERE delay_seconds = 0
),
logged AS (
  INSERT INTO event_log (event_id, job_id, execution_id, lease_id, kind, attempt, max_attempts, step, worker_id, error, detail, started_id)
  SELECT verdict_id, job_id, execution_id, reported_id, CASE WHEN delay_seconds IS NULL THEN 6 ELSE 5 END, attempt, max_attempts, step,
    worker_id, error,
    CASE WHEN delay_seconds IS NULL THEN verdict ELSE '{"available_at":' || to_json(due_at)::text || ',' || substr(verdict, 2) END,
    CASE WHEN worker_id IS NOT NULL THEN lease_id END
  FROM o
)
SELECT lease_id, due_at, CASE WHEN delay_seconds = 0 THEN seq END, queue, priority FROM o
"""
)

# Given back: the attempt does not count, the job is available at once, at the tail of its priority.
_RELEASE = (
    _NOW
    + """
gone AS (
  DELETE FROM lease WHERE lease_id = ANY(%b::int8[]) AND (%b::timestamptz[] IS NULL OR expires_at = ANY(%b::timestamptz[]))
  RETURNING lease_id, job_id, attempt, max_attempts, priority, queue, returns, worker_id
),
o AS MATERIALIZED (
  SELECT n.*, CASE WHEN %b::boolean THEN lease_id END AS released_id, t.base + 2 * item AS event_id, t.base + 2 * item + 1 AS seq
  FROM (SELECT gone.*, row_number() OVER () AS item FROM gone) n CROSS JOIN t
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns)
  SELECT queue, priority, seq, job_id, attempt - 1, CASE WHEN released_id IS NULL THEN returns + 1 ELSE 0 END FROM o
),
logged AS (
  INSERT INTO event_log (event_id, job_id, execution_id, lease_id, kind, attempt, max_attempts, step, worker_id, detail, started_id)
  SELECT event_id, o.job_id, j.execution_id, released_id, 7, attempt, max_attempts, j.step, worker_id,
    json_build_object('attempt', attempt, 'why', %b::text)::text, CASE WHEN worker_id IS NOT NULL THEN lease_id END
  FROM o CROSS JOIN LATERAL (SELECT execution_id, step FROM job WHERE job.job_id = o.job_id OFFSET 0) j
)
SELECT lease_id, queue, priority, seq FROM o
"""
)

# Heartbeat. No lease goes beyond the time that its attempt may take.
_EXTEND = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now),
moved AS (
  UPDATE lease SET expires_at = least(t.now + coalesce(%b::float8, lease_seconds) * interval '1 second', timeout_at)
  FROM t WHERE lease_id = ANY(%b::int8[])
  RETURNING lease_id, job_id, expires_at
),
saved AS (
  INSERT INTO checkpoint (job_id, body)
  SELECT m.job_id, x.body FROM moved m JOIN unnest(%b::int8[], %b::text[]) x(lease_id, body) USING (lease_id)
  WHERE x.body IS NOT NULL ORDER BY m.job_id
  ON CONFLICT (job_id) DO UPDATE SET body = excluded.body
)
SELECT m.lease_id, m.expires_at, extract(epoch FROM m.expires_at - t.now)::float8, c.lease_id IS NOT NULL
FROM moved m CROSS JOIN t
LEFT JOIN LATERAL (SELECT lease_id FROM cancellation WHERE cancellation.lease_id = m.lease_id OFFSET 0) c ON true
"""

# How leases that are gone have ended: the events that ended them, with the verdict of a failure, and without a result, which may be large.
_SPENT = """
SELECT lease_id, kind, CASE WHEN kind IN (5, 6) THEN detail END FROM event_log
WHERE job_id = ANY(%b::int8[]) AND job_id BETWEEN %b::int8 AND %b::int8
  AND lease_id = ANY(%b::int8[]) AND kind IN (3, 4, 5, 6, 7) ORDER BY event_id
"""


class Completion(NamedTuple):
    """A finished attempt; `result` is JSON text. Execution and step are those of its job, None for a job of its own."""

    lease_id: int
    result: str
    execution_id: int | None = None
    step: str | None = None


class Facts(NamedTuple):
    """What a decision on a lease's failure needs to know; `timed_out`: its attempt_timeout has passed."""

    lease_id: int
    job_id: int
    attempt: int
    returns: int
    max_attempts: int
    policy_id: int | None
    queue: str
    kind: str
    execution_id: int | None
    step: str | None
    elapsed_seconds: float
    timed_out: bool
    cancelled: str | None  # why its job was cancelled; None: it was not
    expires_at: datetime


class FailedLease(NamedTuple):
    """A lease to be ended with a verdict; `delay_seconds` None is dead. `error` and `verdict` are the events' JSON objects.

    `returns`: how many deliveries in a row have come back unreceived, this one included; 0 where it had arrived.
    """

    lease_id: int
    delay_seconds: float | None
    error: str
    verdict: str
    returns: int = 0
    execution_id: int | None = None
    step: str | None = None


class Ended(NamedTuple):
    """A failed lease that was found; `seq` is its place in `ready` when it need not wait."""

    lease_id: int
    due_at: datetime | None
    seq: int | None
    queue: str
    priority: int


class ExtendedLease(NamedTuple):
    """A lease that was prolonged."""

    lease_id: int
    expires_at: datetime
    seconds_left: float
    cancelled: bool


class SpentLease(NamedTuple):
    """One event that ended a lease: its kind (`EventKind`), and where that is a failure's its detail, the verdict."""

    lease_id: int
    kind: int
    detail: str | None


async def complete(session: Session, completions: Sequence[Completion]) -> set[int]:
    """The leases that were found and are now done, of at most MOST_LEASES. No lease_id may stand twice. Raises Unavailable."""
    if not completions:
        return set()
    assert len(completions) <= MOST_LEASES
    lease_ids, results, execution_ids, steps = zip(*completions, strict=True)
    ids = Int8s(lease_ids)
    row = await session.row(_COMPLETE, (ids, ids, Texts(results), Int8s(execution_ids), Texts(steps)))
    assert row is not None
    return set(row[0] or ())


async def facts(session: Session, lease_ids: Sequence[int]) -> dict[int, Facts]:
    """What is known of those leases that still exist, by lease_id. Raises Unavailable."""
    return {row[0]: Facts._make(row) for row in await session.rows(_FACTS, (Int8s(lease_ids),))}


async def fail(
    session: Session,
    failed: Sequence[FailedLease],
    *,
    only_expired: bool = False,
    granted_until: Sequence[datetime] | None = None,
) -> dict[int, Ended]:
    """The leases that were found, of at most MOST_LEASES, by lease_id. Raises Unavailable.

    With `only_expired` those that have expired; with `granted_until` those that expire then: not prolonged since their grant.
    """
    if not failed:
        return {}
    assert len(failed) <= MOST_LEASES
    lease_ids, delays, errors, verdicts, returns, execution_ids, steps = zip(*failed, strict=True)
    ids = Int8s(lease_ids)
    rows = await session.rows(
        _FAIL,
        (
            ids,
            only_expired,
            granted_until,
            granted_until,
            not only_expired and granted_until is None,
            ids,
            Float8s(delays),
            Int2s(returns),
            Texts(errors),
            Texts(verdicts),
            Int8s(execution_ids),
            Texts(steps),
        ),
    )
    return {row[0]: Ended._make(row) for row in rows}


async def release(
    session: Session, lease_ids: Sequence[int], why: str, *, granted_until: Sequence[datetime] | None = None
) -> dict[int, Arrival]:
    """Where the jobs of the leases that were found wait now, by lease_id; of at most MOST_LEASES. Raises Unavailable.

    With `granted_until` they come back undelivered, which counts towards their returns: those that expire then, as granted.
    """
    assert len(lease_ids) <= MOST_LEASES
    until = None if granted_until is None else Instants(granted_until)
    rows = await session.rows(_RELEASE, (Int8s(lease_ids), until, until, until is None, why))
    return {lease_id: Arrival(queue, priority, seq) for lease_id, queue, priority, seq in rows}


async def extend(
    session: Session, lease_ids: Sequence[int], checkpoints: Sequence[str | None], seconds: float | None
) -> dict[int, ExtendedLease]:
    """The leases that were found, now good for `seconds` from now (None: for as long as first asked for). Raises Unavailable."""
    ids = Int8s(lease_ids)
    rows = await session.rows(_EXTEND, (seconds, ids, ids, Texts(checkpoints)))
    return {row[0]: ExtendedLease._make(row) for row in rows}


async def spent(session: Session, leases: Sequence[tuple[int, int]]) -> dict[int, list[SpentLease]]:
    """The events that ended leases, given as (job_id, lease_id), by lease_id, oldest first. Raises Unavailable."""
    found: dict[int, list[SpentLease]] = {}
    job_ids, lease_ids = zip(*leases, strict=True)
    for row in await session.rows(_SPENT, (Int8s(job_ids), min(job_ids), max(job_ids), Int8s(lease_ids))):
        found.setdefault(row[0], []).append(SpentLease._make(row))
    return found
