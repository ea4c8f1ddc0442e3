"""Finds what time has brought: jobs that are due, leases that have expired. By index, never from memory.

Sweeps pass a floor, like the leaser: entries that were swept lately are dead but not yet vacuumed, and are not stepped over again.
A floor never lies nearer than what a slow transaction may still commit behind it.
"""

from datetime import datetime
from typing import NamedTuple

from broker.job import Arrival
from broker.store.session import STATEMENT_TIMEOUT_SECONDS, Session

# Nothing commits later than a statement may run, so a floor twice as far back passes over nothing.
FLOOR_SECONDS = 2.0 * STATEMENT_TIMEOUT_SECONDS

# Moves due jobs to `ready`, oldest first, each at the tail of its priority. The last row: how long until the first that was not due yet,
# and how far the floor may be raised. What was due and another broker had in hand is that one's to move.
_PROMOTE = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),
taken AS (
  DELETE FROM delayed WHERE ctid = ANY(ARRAY(
    SELECT d.ctid FROM delayed d WHERE d.due_at <= (SELECT now FROM t) AND d.due_at > %b::timestamptz
    ORDER BY d.due_at LIMIT %b::int4 FOR UPDATE SKIP LOCKED))
  RETURNING due_at, job_id, priority, attempts, returns, queue
),
ordered AS MATERIALIZED (
  SELECT taken.*, (SELECT base FROM t) + row_number() OVER (ORDER BY due_at, job_id) AS seq FROM taken
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, returns FROM ordered
)
SELECT queue, priority, min(seq), count(*), NULL::float8, NULL::timestamptz FROM ordered GROUP BY queue, priority
UNION ALL
SELECT NULL, NULL, NULL, 0,
  extract(epoch FROM (SELECT due_at FROM delayed WHERE due_at > (SELECT now FROM t) ORDER BY due_at LIMIT 1) - (SELECT now FROM t))::float8,
  (SELECT now FROM t) - %b::float8 * interval '1 second'
"""

# Leases that have expired, longest first, each with the floor behind which those are found that expired with it or later. The last row:
# as above.
_EXPIRED = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now)
SELECT lease_id, NULL::float8, expires_at - interval '1 microsecond' FROM (
  SELECT lease_id, expires_at FROM lease WHERE expires_at <= (SELECT now FROM t) AND expires_at > %b::timestamptz
  ORDER BY expires_at LIMIT %b::int4) l
UNION ALL
SELECT NULL,
  extract(epoch FROM (SELECT expires_at FROM lease WHERE expires_at > (SELECT now FROM t) ORDER BY expires_at LIMIT 1)
    - (SELECT now FROM t))::float8,
  (SELECT now FROM t) - %b::float8 * interval '1 second'
"""


class Next(NamedTuple):
    """Seconds until the next one is due, None if there is none; and the floor that the sweep after next may use."""

    seconds: float | None
    floor: datetime


class Promoted(NamedTuple):
    """How many jobs were made available, and where."""

    jobs: int
    arrivals: list[Arrival]
    next: Next


class Expired(NamedTuple):
    """Leases that have expired."""

    lease_ids: list[int]
    next_page: datetime  # the floor of the same sweep's next look, where there may be more
    next: Next


async def promote(session: Session, floor: datetime, limit: int) -> Promoted:
    """Makes due jobs behind the floor available, at most `limit`. Raises Unavailable."""
    *rows, last = await session.rows(_PROMOTE, (floor, limit, FLOOR_SECONDS))
    arrivals = [Arrival(queue, priority, seq) for queue, priority, seq, *_ in rows]
    return Promoted(sum(row[3] for row in rows), arrivals, Next(*last[4:]))


async def expired(session: Session, floor: datetime, limit: int) -> Expired:
    """Leases behind the floor that have expired, longest first, at most `limit`. Changes nothing. Raises Unavailable."""
    *rows, last = await session.rows(_EXPIRED, (floor, limit, FLOOR_SECONDS))
    return Expired([row[0] for row in rows], rows[-1][2] if rows else floor, Next(*last[1:]))
