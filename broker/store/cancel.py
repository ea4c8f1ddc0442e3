"""Takes the jobs of a cancelled execution out of the lanes.

Lane by lane in the order in which jobs move, in statements of their own: what moves on between two of them is found in the next.
A job never moves backwards meanwhile, as whoever would do that needs the execution's row.
"""

from broker.store.session import Session

# Each takes one of the 4096 ids of a block.
_JOBS_PER_STATEMENT = 2000

_DEAD = """
dead AS (
  INSERT INTO event_log (event_id, job_id, execution_id, kind, attempt, step, detail)
  SELECT (SELECT base FROM t) + row_number() OVER (), g.job_id, j.execution_id, 6, g.attempts, j.step,
    json_build_object('attempt', g.attempts, 'max_attempts', j.max_attempts, 'reason', 'cancelled', 'message', %b::text)::text
  FROM gone g CROSS JOIN LATERAL (
    SELECT execution_id, step, max_attempts FROM job WHERE job.job_id = g.job_id OFFSET 0) j
)
SELECT count(*) FROM gone
"""

_CANCEL_DELAYED = (
    f"""
WITH t AS MATERIALIZED (SELECT noetl.next_id() AS base),
mine AS MATERIALIZED (SELECT job_id FROM job WHERE execution_id = %b::int8),
gone AS (
  DELETE FROM delayed WHERE ctid = ANY(ARRAY(
    SELECT d.place FROM mine CROSS JOIN LATERAL (SELECT ctid AS place FROM delayed WHERE delayed.job_id = mine.job_id OFFSET 0) d
    LIMIT {_JOBS_PER_STATEMENT}))
  RETURNING job_id, attempts
),
"""
    + _DEAD
)

_CANCEL_READY = (
    f"""
WITH t AS MATERIALIZED (SELECT noetl.next_id() AS base),
mine AS MATERIALIZED (SELECT job_id, queue, priority FROM job WHERE execution_id = %b::int8),
gone AS (
  DELETE FROM ready WHERE ctid = ANY(ARRAY(
    SELECT r.place FROM mine CROSS JOIN LATERAL (
      SELECT ctid AS place FROM ready WHERE queue = mine.queue AND priority = mine.priority AND seq = mine.job_id
      UNION ALL
      SELECT ctid FROM ready WHERE job_id = mine.job_id AND seq <> job_id OFFSET 0) r
    LIMIT {_JOBS_PER_STATEMENT}))
  RETURNING job_id, attempts
),
"""
    + _DEAD
)

_CANCEL_LEASED = """
INSERT INTO cancellation (lease_id, reason)
SELECT l.lease_id, %b::text FROM job j CROSS JOIN LATERAL (SELECT lease_id FROM lease WHERE lease.job_id = j.job_id OFFSET 0) l
WHERE j.execution_id = %b::int8 ORDER BY l.lease_id
ON CONFLICT DO NOTHING RETURNING lease_id
"""


async def cancel_waiting(session: Session, execution_id: int, why: str) -> int:
    """How many jobs that waited are dead now. Raises Unavailable."""
    cancelled = 0
    for statement in (_CANCEL_DELAYED, _CANCEL_READY):
        while True:
            row = await session.row(statement, (execution_id, why))
            assert row is not None
            cancelled += row[0]
            if row[0] < _JOBS_PER_STATEMENT:
                break
    return cancelled


async def cancel_leased(session: Session, execution_id: int, why: str) -> list[int]:
    """The leases whose workers are to be told to stop. Raises Unavailable."""
    return [row[0] for row in await session.rows(_CANCEL_LEASED, (why, execution_id))]
