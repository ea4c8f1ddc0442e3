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

# Moves due jobs to `ready`, oldest first, each at the tail of its priority.
_PROMOTE = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.id_at(noetl.clock()) AS base),
taken AS (
  DELETE FROM delayed WHERE ctid = ANY(ARRAY(
    SELECT d.ctid FROM delayed d WHERE d.due_at <= (SELECT now FROM t) AND d.due_at > %b::timestamptz
    ORDER BY d.due_at LIMIT %b::int4 FOR UPDATE SKIP LOCKED))
  RETURNING due_at, job_id, priority, attempts, queue
),
ordered AS MATERIALIZED (
  SELECT o.*, (SELECT base FROM t) | (nextval('noetl.id_seq') & 4194303) AS seq FROM (SELECT * FROM taken ORDER BY due_at, job_id) o
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, 0 FROM ordered
)
SELECT queue, priority, min(seq), count(*) FROM ordered GROUP BY queue, priority
"""

# How long until the next job is due; how far the floor may be raised.
_NEXT_DUE = """
SELECT extract(epoch FROM (SELECT due_at FROM delayed WHERE due_at > %b::timestamptz ORDER BY due_at LIMIT 1) - noetl.clock())::float8,
  noetl.clock() - %b::float8 * interval '1 second'
"""

_EXPIRED = """
SELECT lease_id FROM lease WHERE expires_at <= noetl.clock() AND expires_at > %b::timestamptz ORDER BY expires_at LIMIT %b::int4
"""

_NEXT_EXPIRY = """
SELECT extract(epoch FROM (SELECT expires_at FROM lease WHERE expires_at > %b::timestamptz ORDER BY expires_at LIMIT 1)
    - noetl.clock())::float8, noetl.clock() - %b::float8 * interval '1 second'
"""


class Next(NamedTuple):
    """Seconds until the next one is due, 0 if it is already, None if there is none; and the floor that the next sweep may use."""

    seconds: float | None
    floor: datetime


async def promote(session: Session, floor: datetime, limit: int) -> tuple[int, list[Arrival]]:
    """How many due jobs were made available, at most `limit`, and where. Raises Unavailable."""
    rows = await session.rows(_PROMOTE, (floor, limit))
    return sum(row[3] for row in rows), [Arrival(queue, priority, seq) for queue, priority, seq, _ in rows]


async def next_due(session: Session, floor: datetime) -> Next:
    """When the next delayed job behind `floor` is due. Raises Unavailable."""
    return await _next(session, _NEXT_DUE, floor)


async def expired(session: Session, floor: datetime, limit: int) -> list[int]:
    """Leases that have expired, longest first, at most `limit`. Changes nothing. Raises Unavailable."""
    return [row[0] for row in await session.rows(_EXPIRED, (floor, limit))]


async def next_expiry(session: Session, floor: datetime) -> Next:
    """When the next lease behind `floor` expires. Raises Unavailable."""
    return await _next(session, _NEXT_EXPIRY, floor)


async def _next(session: Session, statement: str, floor: datetime) -> Next:
    row = await session.row(statement, (floor, FLOOR_SECONDS))
    assert row is not None
    seconds = None if row[0] is None else max(0.0, row[0])
    return Next(seconds, row[1])
