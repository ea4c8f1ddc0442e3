"""What keeps the tables in shape: partitions ahead of time, leftovers that nothing refers to."""

from broker.store.session import Session

PARTITIONS_AHEAD_DAYS = 7

_ENSURE_PARTITIONS = "SELECT noetl.ensure_partitions(%b::int4)"

# A key goes 24 h after its job has ended. Oldest jobs first, behind those looked at before.
_DROP_KEYS = """
WITH old AS MATERIALIZED (
  SELECT queue, key, job_id FROM idempotency
  WHERE job_id > %b::int8 AND job_id < noetl.id_at(noetl.clock() - interval '24 hours') ORDER BY job_id LIMIT %b::int4
),
ended AS MATERIALIZED (
  SELECT o.queue, o.key FROM old o
  LEFT JOIN LATERAL (SELECT priority, queue FROM job WHERE job.job_id = o.job_id OFFSET 0) j ON true
  LEFT JOIN LATERAL (SELECT status FROM noetl.lane_of(o.job_id, j.queue, j.priority) OFFSET 0) lane ON true
  LEFT JOIN LATERAL (SELECT finished_at FROM noetl.end_of(o.job_id) OFFSET 0) e ON true
  WHERE lane.status IS NULL AND (e.finished_at IS NULL OR e.finished_at < noetl.clock() - interval '24 hours')
),
dropped AS (
  DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
    SELECT i.place FROM ended CROSS JOIN LATERAL (
      SELECT ctid AS place FROM idempotency WHERE idempotency.queue = ended.queue AND idempotency.key = ended.key OFFSET 0) i))
)
SELECT max(job_id), count(*) FROM old
"""

# The same for the keys of executions.
_DROP_EXECUTION_KEYS = """
UPDATE execution SET idempotency_key = NULL
WHERE idempotency_key IS NOT NULL AND finished_at < noetl.clock() - interval '24 hours'
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


async def ensure_partitions(session: Session) -> None:
    """Makes the partitions of the coming days. Raises Unavailable, also where a lock could not be had at once."""
    await session.rows(_ENSURE_PARTITIONS, (PARTITIONS_AHEAD_DAYS,))


async def drop_leftovers(session: Session) -> None:
    """Drops checkpoints, cancellations and executions' keys that nothing needs any more. Raises Unavailable."""
    for statement in (_DROP_CHECKPOINTS, _DROP_CANCELLATIONS, _DROP_EXECUTION_KEYS):
        await session.rows(statement)


async def drop_old_keys(session: Session, after: int, limit: int) -> tuple[int, int]:
    """Looks at `limit` idempotency keys of jobs behind `after`; the last job looked at, 0 at the end, and how many there were."""
    row = await session.row(_DROP_KEYS, (after, limit))
    assert row is not None
    return (row[0] or 0), row[1]
