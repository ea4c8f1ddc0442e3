"""Finds what time has brought: leases that have expired, by index, never from memory. Jobs that are due: see promote.

Sweeps pass a floor, like the leaser: entries that were swept lately are dead but not yet vacuumed, and are not stepped over again.
A floor never lies nearer than what a slow transaction may still commit behind it.
"""

from datetime import datetime
from typing import NamedTuple

from broker.store.session import STATEMENT_TIMEOUT_SECONDS, Session

# Nothing commits later than a statement may run, so a floor twice as far back passes over nothing.
FLOOR_SECONDS = 2.0 * STATEMENT_TIMEOUT_SECONDS

# Leases that have expired, longest first; of those that one statement has granted or prolonged many may expire at the same instant.
# The last row: how long until the first that has not expired yet, and how far the floor may be raised.
_EXPIRED = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now)
SELECT lease_id, NULL::float8, expires_at FROM (
  SELECT lease_id, expires_at FROM lease
  WHERE expires_at <= (SELECT now FROM t) AND (expires_at, lease_id) > (%b::timestamptz, %b::int8)
  ORDER BY expires_at, lease_id LIMIT %b::int4) l
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


class Place(NamedTuple):
    """Where a look begins: behind the lease of this id among those that expire at that instant."""

    expires_at: datetime
    lease_id: int = 0


class Expired(NamedTuple):
    """Leases that have expired."""

    lease_ids: list[int]
    last: Place  # where the same sweep's next look begins, where there may be more
    next: Next


async def expired(session: Session, behind: Place, limit: int) -> Expired:
    """Leases behind a place that have expired, longest first, at most `limit`. Changes nothing. Raises Unavailable."""
    *rows, last = await session.rows(_EXPIRED, (*behind, limit, FLOOR_SECONDS))
    found = [row[0] for row in rows]
    return Expired(found, Place(rows[-1][2], found[-1]) if rows else behind, Next(*last[1:]))
