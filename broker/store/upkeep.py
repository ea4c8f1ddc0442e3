"""What keeps the tables in shape: partitions ahead of time, summaries of when events happened, leftovers that nothing refers to."""

from typing import NamedTuple

from psycopg import errors as pg_errors

from broker.errors import Unavailable
from broker.store.session import Session

PARTITIONS_AHEAD_DAYS = 7

_ENSURE_PARTITIONS = "SELECT noetl.ensure_partitions(%b::int4)"

# When events happened is found by block range: blocks written since the last time are summarized, so that they need not all be read.
_SUMMARIZE = "SELECT noetl.summarize_events()"

# A key goes 24 h after its job has ended: the ends of that time are found by the index of event times, each is looked at once. One of
# several brokers does it. A dead job that was redriven since then has yet to end.
_FREE_KEYS = """
WITH progress AS MATERIALIZED (SELECT keys_freed_until AS since FROM upkeep FOR UPDATE SKIP LOCKED),
due AS MATERIALIZED (
  SELECT since, noetl.id_at(noetl.clock() - interval '24 hours') AS until,
    EXISTS (SELECT FROM idempotency WHERE job_id < noetl.id_at(noetl.clock() - interval '24 hours')) AS is_needed
  FROM progress
),
span AS MATERIALIZED (
  SELECT since, greatest(since, CASE WHEN is_needed THEN least(until, since + %b::int8) ELSE until END) AS until,
    is_needed AND until > since + %b::int8 AS has_more, is_needed
  FROM due
),
ended AS MATERIALIZED (
  SELECT job_id, event_id, kind FROM event_log
  WHERE event_id >= (SELECT since FROM span WHERE is_needed) AND event_id < (SELECT until FROM span) AND kind IN (3, 6)
),
freed AS MATERIALIZED (
  SELECT e.job_id FROM ended e
  LEFT JOIN LATERAL (
    SELECT event_id FROM event_log r
    WHERE e.kind = 6 AND r.job_id = e.job_id AND r.kind >= 4 AND r.kind = 8 AND r.event_id > e.event_id LIMIT 1) redriven ON true
  WHERE redriven.event_id IS NULL
),
dropped AS (DELETE FROM idempotency WHERE job_id = ANY(ARRAY(SELECT job_id FROM freed))),
moved AS (UPDATE upkeep SET keys_freed_until = (SELECT until FROM span) WHERE EXISTS (SELECT FROM span))
SELECT (SELECT count(*) FROM ended), NOT has_more FROM span
"""

# The same for the keys of executions.
_FREE_EXECUTION_KEYS = """
WITH freed AS (
  UPDATE execution SET idempotency_key = NULL WHERE execution_id = ANY(ARRAY(
    SELECT execution_id FROM execution
    WHERE idempotency_key IS NOT NULL AND finished_at < noetl.clock() - interval '24 hours'
    ORDER BY finished_at LIMIT 1000 FOR UPDATE SKIP LOCKED))
  RETURNING execution_id
)
SELECT count(*) FROM freed
"""

# Checkpoints of jobs that have ended, and cancellations of leases that are gone.
_DROP_CHECKPOINTS = """
DELETE FROM checkpoint WHERE job_id = ANY(ARRAY(
  SELECT c.job_id FROM checkpoint c
  LEFT JOIN LATERAL (SELECT priority, queue FROM job WHERE job.job_id = c.job_id OFFSET 0) j ON true
  LEFT JOIN LATERAL (SELECT status FROM noetl.lane_of(c.job_id, j.queue, j.priority) OFFSET 0) lane ON true
  WHERE lane.status IS NULL LIMIT 1000))
"""
_DROP_CANCELLATIONS = """
DELETE FROM cancellation WHERE lease_id = ANY(ARRAY(
  SELECT c.lease_id FROM cancellation c
  LEFT JOIN LATERAL (SELECT lease_id FROM lease WHERE lease.lease_id = c.lease_id OFFSET 0) l ON true
  WHERE l.lease_id IS NULL LIMIT 1000))
"""


class FreedKeys(NamedTuple):
    """Ends of jobs that were looked at; `is_last`: all that are due were."""

    ends: int
    is_last: bool


async def ensure_partitions(session: Session, *, tries: int = 1) -> None:
    """Makes the partitions of the coming days. Raises Unavailable, also where a lock could not be had `tries` times, 0.1 s each:
    another one holds it who makes them, or who reads.
    """
    while True:
        tries -= 1
        try:
            await session.rows(_ENSURE_PARTITIONS, (PARTITIONS_AHEAD_DAYS,))
        except Unavailable as error:
            if not (tries and isinstance(error.__cause__, pg_errors.LockNotAvailable)):
                raise
        else:
            return


async def summarize_events(session: Session) -> None:
    """Brings the block range summaries of events up to date. Raises Unavailable."""
    await session.rows(_SUMMARIZE)


async def drop_leftovers(session: Session) -> None:
    """Drops checkpoints and cancellations that nothing needs any more. Raises Unavailable."""
    for statement in (_DROP_CHECKPOINTS, _DROP_CANCELLATIONS):
        await session.rows(statement)


async def free_execution_keys(session: Session) -> None:
    """Frees the idempotency keys of executions that ended 24 hours ago. Raises Unavailable."""
    while (row := await session.row(_FREE_EXECUTION_KEYS)) is not None and row[0]:
        pass


async def free_keys(session: Session, span: int) -> FreedKeys | None:
    """Frees the idempotency keys of jobs that ended 24 hours ago, those of the next `span` of ids; None while another broker does.

    Raises Unavailable.
    """
    row = await session.row(_FREE_KEYS, (span, span))
    return None if row is None else FreedKeys._make(row)
