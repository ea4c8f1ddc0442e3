"""Moves jobs that are due from `delayed` to where they are leased from, or to a worker that waits for them; by index, never from memory.

Sweeps pass a floor, like those of expired leases. Must not choose who takes a job: the dispatcher offers slots.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from broker.job import Arrival, Grant, Taker
from broker.store.arrays import Int4s, Texts
from broker.store.grant import BY_PLACE, NO_END, REACH, grant_statement, run_grant
from broker.store.session import Session
from broker.store.sweep import FLOOR_SECONDS, Next

# Those that are due, oldest first. What another broker has in hand is that one's to move.
_DUE = """
due AS (
  DELETE FROM delayed WHERE ctid = ANY(ARRAY(
    SELECT d.ctid FROM delayed d WHERE d.due_at <= (SELECT now FROM t) AND d.due_at > %b::timestamptz
    ORDER BY d.due_at LIMIT %b::int4 FOR UPDATE SKIP LOCKED))
  RETURNING due_at, job_id, priority, attempts, returns, queue
)""".strip()

# The last row's: how long until the first that was not due yet, and how far the floor may be raised.
_SECONDS_TO_NEXT = """
extract(epoch FROM (SELECT due_at FROM delayed WHERE due_at > (SELECT now FROM t) ORDER BY due_at LIMIT 1) - (SELECT now FROM t))::float8
""".strip()
_NEXT_FLOOR = "(SELECT now FROM t) - %b::float8 * interval '1 second'"

# All of them wait for a worker, each at the tail of its priority.
_PROMOTE = f"""
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),
{_DUE},
ordered AS MATERIALIZED (
  SELECT due.*, (SELECT base FROM t) + row_number() OVER (ORDER BY due_at, job_id) AS seq FROM due
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, returns FROM ordered
)
SELECT queue, priority, min(seq), count(*), NULL::float8, NULL::timestamptz FROM ordered GROUP BY queue, priority
UNION ALL
SELECT NULL, NULL, NULL, 0, {_SECONDS_TO_NEXT}, {_NEXT_FLOOR}
"""

# Some are leased at once: no row in `ready`, no second statement. The n-th of a share, in the order of its queues, their priorities and
# time, goes to the n-th slot from there; the others wait. A job's place is its number among the due: of it comes its seq or its lease's id.
_TAKE = f"""
{_DUE},
placed AS MATERIALIZED (
  SELECT n.*, (SELECT base FROM t) + place AS seq, first_slot + position AS slot FROM (
    SELECT due.*, o.first_slot, o.quota,
      row_number() OVER (ORDER BY o.first_slot, o.rank, priority DESC, due_at, job_id) AS place,
      row_number() OVER (PARTITION BY o.first_slot ORDER BY o.rank, priority DESC, due_at, job_id)::int4 AS position
    FROM due LEFT JOIN unnest(%b::text[], %b::int4[], %b::int4[], %b::int4[]) o(queue, first_slot, quota, rank) USING (queue)) n
),
taken AS MATERIALIZED (SELECT * FROM placed WHERE position <= quota),
ordered AS (SELECT queue, priority, seq, job_id, attempts, returns, place, slot FROM taken),
waiting AS MATERIALIZED (SELECT * FROM placed WHERE quota IS NULL OR position > quota),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, returns FROM waiting
)"""

# Behind the leases: as _PROMOTE, in the columns of `Grant`. They have no stream; `job_id` is how many wait, the last row's seconds are
# `attempt_timeout_seconds` and its floor `expires_at`.
_WAITING_AND_NEXT = f"""
SELECT NULL, NULL, count(*), min(seq), NULL, NULL, NULL, NULL, priority, queue,
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM waiting GROUP BY queue, priority
UNION ALL
SELECT NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, NULL, {_NEXT_FLOOR}, NULL, NULL, {_SECONDS_TO_NEXT}, NULL, NULL
"""

# Most have not been delayed for long: bodies are looked for from some time before now on.
_PROMOTE_AND_TAKE = grant_statement(
    _TAKE, oldest="noetl.id_at(noetl.clock()) - %b::int8", more=_WAITING_AND_NEXT
)


class QueueOffer(NamedTuple):
    """Slots offered to what becomes due in one queue: those from `first_slot` on, at most `quota`.

    They are taken after those of the queues with the same first slot and a lower `rank`.
    """

    queue: str
    first_slot: int
    quota: int
    rank: int


class Offer(NamedTuple):
    """Slots offered to jobs that become due. `slots[i]` is the number of a stream, one of `takers`."""

    queues: Sequence[QueueOffer] = ()
    slots: Sequence[int] = ()
    takers: Sequence[Taker] = ()


class Promoted(NamedTuple):
    """How many jobs were due, what was leased of them, and where the others wait."""

    jobs: int
    granted: list[Grant]
    arrivals: list[Arrival]
    next: Next


async def promote(session: Session, floor: datetime, limit: int, offer: Offer) -> Promoted:
    """Leases due jobs behind the floor to the slots offered, and makes the others available; at most `limit` (1 to 1000). Committed.

    Raises Unavailable.
    """
    if not offer.queues:
        return await _promote(session, floor, limit)
    taking = (
        floor,
        limit,
        Texts([queue.queue for queue in offer.queues]),
        Int4s([queue.first_slot for queue in offer.queues]),
        Int4s([queue.quota for queue in offer.queues]),
        Int4s([queue.rank for queue in offer.queues]),
    )
    found = await run_grant(
        session,
        _PROMOTE_AND_TAKE,
        taking,
        offer.slots,
        offer.takers,
        near=REACH,
        everywhere=NO_END,
        more=(FLOOR_SECONDS,),
    )
    *rows, last = map(Grant._make, found)
    granted = sorted((row for row in rows if row.stream is not None), key=BY_PLACE)
    waiting = [row for row in rows if row.stream is None]
    return Promoted(
        jobs=len(granted) + sum(row.job_id for row in waiting),
        granted=granted,
        arrivals=[Arrival(row.queue, row.priority, row.seq, row.job_id) for row in waiting],
        next=Next(last.attempt_timeout_seconds, last.expires_at),
    )


async def _promote(session: Session, floor: datetime, limit: int) -> Promoted:
    """All due jobs are made available."""
    *rows, last = await session.rows(_PROMOTE, (floor, limit, FLOOR_SECONDS))
    arrivals = [Arrival(queue, priority, seq, jobs) for queue, priority, seq, jobs, *_ in rows]
    return Promoted(sum(row[3] for row in rows), [], arrivals, Next(*last[4:]))
