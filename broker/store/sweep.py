"""Finds what time has brought: leases that have expired, by index, never from memory. Jobs that are due: see promote.

Sweeps pass a floor, like the leaser: entries that were swept lately are dead but not yet vacuumed, and are not stepped over again.
A floor never lies nearer than what a slow transaction may still commit behind it.
"""

from datetime import datetime
from typing import NamedTuple

from broker.store.session import STATEMENT_TIMEOUT_SECONDS, Session

# Nothing commits later than a statement may run, so a floor twice as far back passes over nothing.
FLOOR_SECONDS = 2.0 * STATEMENT_TIMEOUT_SECONDS

# Leases that have expired, longest first, each with the floor behind which those are found that expired with it or later. The last row:
# how long until the first that has not expired yet, and how far the floor may be raised.
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


class Expired(NamedTuple):
    """Leases that have expired."""

    lease_ids: list[int]
    next_page: datetime  # the floor of the same sweep's next look, where there may be more
    next: Next


async def expired(session: Session, floor: datetime, limit: int) -> Expired:
    """Leases behind the floor that have expired, longest first, at most `limit`. Changes nothing. Raises Unavailable."""
    *rows, last = await session.rows(_EXPIRED, (floor, limit, FLOOR_SECONDS))
    return Expired([row[0] for row in rows], rows[-1][2] if rows else floor, Next(*last[1:]))
