"""Moves jobs that are due from `delayed` to where they are leased from, or to a worker that waits for them; by index, never from memory.

Sweeps pass a floor, like those of expired leases. Must not choose who takes a job: the dispatcher says what it offers.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import errors as pg_errors

from broker.job import Arrival, Grant, Taker
from broker.store.arrays import Int4s, Texts
from broker.store.grant import REACH, grant_arguments, grant_statement
from broker.store.session import Row, Session
from broker.store.sweep import FLOOR_SECONDS, Next

# Those that are due, oldest first. What another broker has in hand is that one's to move.
_DUE = """
due AS (
  DELETE FROM delayed WHERE ctid = ANY(ARRAY(
    SELECT d.ctid FROM delayed d WHERE d.due_at <= (SELECT now FROM t) AND d.due_at > %b::timestamptz
    ORDER BY d.due_at LIMIT %b::int4 FOR UPDATE SKIP LOCKED))
  RETURNING due_at, job_id, priority, attempts, returns, queue
)"""

# The last row's: how long until the first that was not due yet, and how far the floor may be raised.
_SECONDS_TO_NEXT = """
extract(epoch FROM (SELECT due_at FROM delayed WHERE due_at > (SELECT now FROM t) ORDER BY due_at LIMIT 1) - (SELECT now FROM t))::float8
"""
_NEXT_FLOOR = "(SELECT now FROM t) - %b::float8 * interval '1 second'"

# All of them wait for a worker, each at the tail of its priority.
_PROMOTE = f"""
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),
{_DUE.strip()},
ordered AS MATERIALIZED (
  SELECT due.*, (SELECT base FROM t) + row_number() OVER (ORDER BY due_at, job_id) AS seq FROM due
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, returns FROM ordered
)
SELECT (SELECT base FROM t), queue, priority, min(seq), count(*), NULL::float8, NULL::timestamptz FROM ordered GROUP BY queue, priority
UNION ALL
SELECT (SELECT base FROM t), NULL, NULL, NULL, 0, {_SECONDS_TO_NEXT.strip()}, {_NEXT_FLOOR}
"""

# Some are leased at once: no row in `ready`, no second statement. The n-th of a share, in the order of its queues and their priorities,
# goes to the n-th slot from there; the others wait. A job's place is its number among the due: of it comes its seq or its lease's id.
_TAKE = f"""
{_DUE.strip()},
numbered AS MATERIALIZED (
  SELECT due.*, row_number() OVER (ORDER BY priority DESC, due_at, job_id) AS place FROM due
),
placed AS MATERIALIZED (
  SELECT n.*, (SELECT base FROM t) + place AS seq, o.first_slot, o.quota,
    row_number() OVER (PARTITION BY o.first_slot ORDER BY o.rank, place)::int4 AS position
  FROM numbered n LEFT JOIN unnest(%b::text[], %b::int4[], %b::int4[], %b::int4[]) o(queue, first_slot, quota, rank) USING (queue)
),
taken AS MATERIALIZED (SELECT p.*, first_slot + position AS slot FROM placed p WHERE position <= quota),
ordered AS (SELECT queue, priority, seq, job_id, attempts, returns, place, slot FROM taken),
waiting AS MATERIALIZED (SELECT * FROM placed WHERE quota IS NULL OR position > quota),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, seq, job_id, attempts, returns FROM waiting
)"""

# Behind the leases: rows as of _PROMOTE, in columns of the same types; they have no stream.
_WAITING_AND_NEXT = f"""
SELECT NULL, (SELECT base FROM t), count(*), min(seq), NULL, NULL, NULL, NULL, queue, priority,
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM waiting GROUP BY queue, priority
UNION ALL
SELECT NULL, (SELECT base FROM t), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, NULL, {_NEXT_FLOOR}, NULL, NULL, {_SECONDS_TO_NEXT.strip()}, NULL, NULL
"""

_PROMOTE_AND_TAKE = grant_statement(_TAKE, _WAITING_AND_NEXT)


class OfferedQueue(NamedTuple):
    """A queue whose jobs are leased as they become due: to the slots from `first_slot` on, at most `quota`.

    They come after those of the queues with the same first slot and a lower `rank`.
    """

    queue: str
    first_slot: int
    quota: int
    rank: int


class Offer(NamedTuple):
    """Who takes jobs that are due. `slots[i]` is the number of a stream, one of `takers`. An empty one: nobody does."""

    queues: Sequence[OfferedQueue] = ()
    slots: Sequence[int] = ()
    takers: Sequence[Taker] = ()


class Promoted(NamedTuple):
    """How many jobs were due, what was leased of them and where the others wait; `now_id` is an id of that instant."""

    jobs: int
    granted: list[Grant]
    arrivals: list[Arrival]
    next: Next
    now_id: int


async def promote(session: Session, floor: datetime, limit: int, offer: Offer, now_id: int = 0) -> Promoted:
    """Makes due jobs behind the floor available, at most `limit` (1 to 1000), or leases them to whom they are offered; committed.

    `now_id`: of the promotion before, so that bodies are looked for where they most likely are. Raises Unavailable.
    """
    due = (floor, limit)
    if not offer.queues:
        rows = await session.rows(_PROMOTE, (*due, FLOOR_SECONDS))
        return _promoted([], rows)
    taking = (
        *due,
        Texts([queue.queue for queue in offer.queues]),
        Int4s([queue.first_slot for queue in offer.queues]),
        Int4s([queue.quota for queue in offer.queues]),
        Int4s([queue.rank for queue in offer.queues]),
    )
    oldest = now_id - REACH if now_id > REACH else None
    while True:
        granting = grant_arguments(offer.slots, offer.takers, oldest)
        try:
            rows = await session.rows(_PROMOTE_AND_TAKE, (*taking, *granting, FLOOR_SECONDS))
        except pg_errors.SerializationFailure:
            if oldest is None:
                raise
            oldest = None  # nothing was taken
        else:
            break
    granted = [Grant._make(row) for row in rows if row[0] is not None]
    others = [(row[1], row[8], row[9], row[3], row[2], row[16], row[13]) for row in rows[len(granted) :]]
    return _promoted(granted, others)


def _promoted(granted: list[Grant], rows: Sequence[Row]) -> Promoted:
    *waiting, (now_id, *_, seconds, next_floor) = rows
    return Promoted(
        jobs=len(granted) + sum(jobs for *_, jobs, _, _ in waiting),
        granted=granted,
        arrivals=[Arrival(queue, priority, seq) for _, queue, priority, seq, *_ in waiting],
        next=Next(seconds, next_floor),
        now_id=now_id,
    )
