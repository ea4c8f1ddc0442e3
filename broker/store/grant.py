"""Grants leases: moves jobs from `ready` to `lease`; one statement for many streams.

Owns the part that all statements share which lease jobs that were put in before. Must not choose streams: the dispatcher says which slots
there are.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from psycopg import errors as pg_errors
from psycopg.types.numeric import Int8

from broker.ids import IDS_PER_SECOND
from broker.job import Grant, Taker
from broker.store.arrays import Float8s, Int2s, Int4s, Int8s, Texts
from broker.store.session import Row, Session

# Leases what was `taken`: ids of leases rise with `place`, rows come as they are: to sort them, the database takes 1 us of each (measured
# 2026-11). Bodies are read by one scan, between bounds that are known before it starts: partitions outside of them are not even opened,
# where each would cost some 25 us. A body that lies outside undoes the statement (refuse_partial).
# A job that is not fresh brings what its earlier attempts left: the last failure, a checkpoint; only then are those looked for. The
# lease's row is the record of the attempt's start.
_GRANT = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),
{taken},
failure AS MATERIALIZED (
  SELECT DISTINCT ON (job_id) job_id, coalesce(error, detail) AS error FROM event_log
  WHERE job_id = ANY(ARRAY(SELECT job_id FROM taken WHERE attempts BETWEEN 1 AND {few})) AND kind >= 4
    AND (error IS NOT NULL OR kind = 4)
    AND job_id >= {oldest} AND job_id <= noetl.id_at(noetl.clock()) + %b::int8
  ORDER BY job_id, event_id DESC
),
granted AS MATERIALIZED (
  SELECT g.*, j.kind, j.max_attempts, j.policy_id, j.input, j.execution_id, j.step, j.attempt_timeout_seconds, j.dependency,
    j.traceparent, j.labels, s.stream, s.worker_id, s.lease_seconds,
    (SELECT base FROM t) + g.place AS lease_id,
    (SELECT now FROM t) + least(s.lease_seconds, j.attempt_timeout_seconds) * interval '1 second' AS expires_at
  FROM (SELECT o.*, (SELECT %b::int4[])[o.slot] AS slot_stream FROM ordered o) g
  JOIN (
    SELECT * FROM job WHERE job_id = ANY(ARRAY(SELECT job_id FROM taken))
      AND job_id >= {oldest} AND job_id <= noetl.id_at(noetl.clock()) + %b::int8) j USING (job_id)
  LEFT JOIN unnest(%b::int4[], %b::text[], %b::float8[]) s(stream, worker_id, lease_seconds) ON s.stream = g.slot_stream
),
leased AS (
  INSERT INTO lease (lease_id, job_id, expires_at, timeout_at, lease_seconds, priority, attempt, returns, queue, worker_id, max_attempts)
  SELECT lease_id, job_id, expires_at, (SELECT now FROM t) + attempt_timeout_seconds * interval '1 second', lease_seconds, priority,
    attempts + 1, returns, queue, worker_id, max_attempts
  FROM granted
)
(SELECT stream, lease_id, job_id, seq, input, traceparent,
  CASE WHEN seq <> job_id THEN (SELECT body FROM checkpoint p WHERE p.job_id = g.job_id) END,
  CASE WHEN attempts > {few} THEN (
    SELECT coalesce(error, detail) FROM event_log e
    WHERE e.job_id = g.job_id AND e.kind >= 4 AND (e.error IS NOT NULL OR e.kind = 4)
      AND e.job_id >= {oldest} AND e.job_id <= noetl.id_at(noetl.clock()) + %b::int8 ORDER BY e.event_id DESC LIMIT 1)
    ELSE failure.error END,
  priority, queue, policy_id, kind, attempts + 1, max_attempts, expires_at, execution_id, step, attempt_timeout_seconds, dependency,
  labels::text
FROM granted g LEFT JOIN failure USING (job_id)
WHERE %b::boolean OR noetl.refuse_partial((SELECT count(*) FROM taken) - (SELECT count(*) FROM granted)))
{more}"""

# Jobs of lanes are taken from behind the floor of each on, never from the head of a churned index.
# Of one lane: its first jobs, locked as they are found; a second broker passes over just those.
_FROM_ONE_LANE = """
taken AS (
  DELETE FROM ready WHERE ctid = ANY(ARRAY(
    SELECT r.ctid FROM ready r WHERE r.queue = %b::text AND r.priority = %b::int2 AND r.seq > %b::int8
    ORDER BY r.seq LIMIT %b::int4 FOR UPDATE SKIP LOCKED))
  RETURNING queue, priority, seq, job_id, attempts, returns
),
ordered AS (
  SELECT n.*, n.place::int4 AS slot FROM (SELECT taken.*, row_number() OVER (ORDER BY seq) AS place FROM taken) n
)"""

# Of several lanes. Places are chosen without a lock and then locked by ctid: locked as they are found, a second broker would pass over
# whole lanes. So what another broker is just taking is chosen in vain: not to be mistaken for empty, the lanes say then what was chosen of
# them (_CHOSEN). Queues with the same first slot are a share: the n-th of its jobs, in the order of its queues, goes to the n-th slot from
# there.
_FROM_LANES = """
wanted AS MATERIALIZED (
  SELECT * FROM unnest(%b::text[], %b::int2[], %b::int8[], %b::int4[], %b::int4[], %b::int4[])
    w(queue, priority, floor, quota, first_slot, rank)
),
found AS MATERIALIZED (
  SELECT c.*, w.quota, w.first_slot, w.rank FROM wanted w CROSS JOIN LATERAL (
    SELECT r.ctid AS place, r.queue, r.priority, r.seq FROM ready r
    WHERE r.queue = w.queue AND r.priority = w.priority AND r.seq > w.floor ORDER BY r.seq LIMIT w.quota) c
),
chosen AS MATERIALIZED (
  SELECT place FROM (
    SELECT place, quota, row_number() OVER (PARTITION BY first_slot ORDER BY rank, priority DESC, seq) AS position FROM found) f
  WHERE position <= quota
),
taken AS (
  DELETE FROM ready WHERE ctid = ANY(ARRAY(
    SELECT r.ctid FROM ready r WHERE r.ctid = ANY(ARRAY(SELECT place FROM chosen)) FOR UPDATE SKIP LOCKED))
  RETURNING queue, priority, seq, job_id, attempts, returns
),
ordered AS (
  SELECT n.*, row_number() OVER (ORDER BY first_slot, slot) AS place FROM (
    SELECT taken.*, f.first_slot,
      f.first_slot + row_number() OVER (PARTITION BY f.first_slot ORDER BY f.rank, priority DESC, seq)::int4 AS slot
    FROM taken JOIN (SELECT DISTINCT queue, first_slot, rank FROM wanted) f USING (queue)) n
)"""

# Behind the leases, where fewer were taken than chosen: how many were chosen of each lane (`job_id`), and up to which seq.
_CHOSEN = """
SELECT NULL, NULL, count(*), max(seq), NULL, NULL, NULL, NULL, priority, queue,
  NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM found JOIN chosen USING (place) WHERE (SELECT count(*) FROM chosen) > (SELECT count(*) FROM taken) GROUP BY queue, priority
"""

# Jobs that have failed no more often have their failures read together, for a third of the time of looking for the last one of each
# (measured 2026-11); of others that would be too many.
_FEW_FAILURES = 8


def grant_statement(taken: str, *, oldest: str = "%b::int8", more: str = "") -> str:
    """Leases the jobs that the CTEs `taken` take: their `ordered` gives each a place and a slot. Its rows are those of `Grant`.

    `oldest` tells the id from which on bodies are looked for, of an argument; `more` is a query whose rows come behind.
    """
    return _GRANT.format(
        taken=taken.strip(),
        few=_FEW_FAILURES,
        oldest=oldest,
        more=f"UNION ALL\n{more.strip()}" if more else "",
    ).strip()


_GRANT_FROM_ONE_LANE = grant_statement(_FROM_ONE_LANE)
_GRANT_FROM_LANES = grant_statement(_FROM_LANES, more=_CHOSEN)

# Priorities with jobs, of queues, in the gaps between the priorities already known, and whether a lane that is known has some behind its
# floor: none is read from its head.
_DISCOVER = """
SELECT g.queue, r.priority FROM unnest(%b::text[], %b::int2[], %b::int2[]) g(queue, above, below)
CROSS JOIN LATERAL (
  SELECT priority FROM ready WHERE ready.queue = g.queue AND ready.priority > g.above AND ready.priority < g.below
  ORDER BY priority DESC LIMIT 1) r
UNION ALL
SELECT w.queue, r.priority FROM unnest(%b::text[], %b::int2[], %b::int8[]) w(queue, priority, floor)
CROSS JOIN LATERAL (
  SELECT priority FROM ready WHERE ready.queue = w.queue AND ready.priority = w.priority AND ready.seq > w.floor
  ORDER BY seq LIMIT 1) r
"""

# The lowest id that an instant some seconds ago could have given.
_FLOOR = "SELECT noetl.id_at(noetl.clock() - %b::float8 * interval '1 second')"


# How much older than the place where its lane is read a job may be to be found at once: what has come back after a delay; and how much
# newer than the clock, which may have been set back a little.
REACH = 3600 * IDS_PER_SECOND
_AHEAD = 60 * IDS_PER_SECOND
NO_END = 1 << 61

# The id of a lease is its place behind `base`.
BY_PLACE = attrgetter("lease_id")


class Lane(NamedTuple):
    """Jobs wanted from one (queue, priority): those behind `floor`.

    They go to the slots from `first_slot` on, at most `quota`, after those of the queues with the same first slot and a lower `rank`.
    """

    queue: str
    priority: int
    floor: int
    quota: int
    first_slot: int
    rank: int = 0


class Chosen(NamedTuple):
    """What a statement was to take from one lane: so many jobs, all that it saw up to `seq`."""

    queue: str
    priority: int
    seq: int
    jobs: int


class Granted(NamedTuple):
    """The leases, in the order of slots, queue, priority and age."""

    leases: list[Grant]
    chosen: Sequence[Chosen] = ()
    """By lane, where another broker took some of it first or is about to; empty where all that was chosen was leased."""


async def grant(
    session: Session, lanes: Sequence[Lane], slots: Sequence[int], takers: Sequence[Taker]
) -> Granted:
    """What was leased; committed. `slots[i]` is the taker's number. Raises Unavailable.

    Bodies are looked for from an hour before the lowest floor on; where a job is older than that, as after a long delay, everywhere.
    """
    statement, wanted = _from(lanes)
    oldest = min(lane.floor for lane in lanes) - REACH
    near = oldest if oldest > 0 else None
    rows = await run_grant(session, statement, wanted, slots, takers, near=near, everywhere=0)
    chosen: list[Chosen] = []
    while rows and rows[-1][0] is None:
        lane = Grant._make(rows.pop())
        chosen.append(Chosen(lane.queue, lane.priority, lane.seq, lane.job_id))
    return Granted(sorted(map(Grant._make, rows), key=BY_PLACE), chosen)


async def run_grant(
    session: Session,
    statement: str,
    taking: Sequence[object],
    slots: Sequence[int],
    takers: Sequence[Taker],
    *,
    near: int | None,
    everywhere: int,
    more: Sequence[object] = (),
) -> list[Row]:
    """The rows of a `grant_statement`: leases, in no order, before those of its own `more`. Raises Unavailable.

    `taking` and `more` are the arguments of its own parts. Its `oldest` is `near`, unless that is None, so that few partitions are
    opened; where a body lies outside, all is done again with `everywhere`.
    """

    def arguments(oldest: int, ahead: int, *, whole: bool) -> tuple[object, ...]:
        reach = (Int8(oldest), Int8(ahead))
        return (
            *taking,
            *reach,
            Int4s(slots),
            *reach,
            Int4s([taker.stream for taker in takers]),
            Texts([taker.worker_id for taker in takers]),
            Float8s([taker.lease_seconds for taker in takers]),
            *reach,
            whole,
            *more,
        )

    if near is not None:
        try:
            return await session.rows(statement, arguments(near, _AHEAD, whole=False))
        except pg_errors.SerializationFailure:
            pass  # nothing was taken
    return await session.rows(statement, arguments(everywhere, NO_END, whole=True))


def _from(lanes: Sequence[Lane]) -> tuple[str, tuple[object, ...]]:
    """The statement that takes from these lanes, and its first arguments."""
    if len(lanes) == 1:
        (lane,) = lanes
        assert lane.first_slot == 0
        return _GRANT_FROM_ONE_LANE, (lane.queue, lane.priority, lane.floor, lane.quota)
    return _GRANT_FROM_LANES, (
        Texts([lane.queue for lane in lanes]),
        Int2s([lane.priority for lane in lanes]),
        Int8s([lane.floor for lane in lanes]),
        Int4s([lane.quota for lane in lanes]),
        Int4s([lane.first_slot for lane in lanes]),
        Int4s([lane.rank for lane in lanes]),
    )


async def discover(
    session: Session, gaps: Sequence[tuple[str, int, int]], lanes: Sequence[tuple[str, int, int]]
) -> list[tuple[str, int]]:
    """The highest (queue, priority) with jobs in each gap, and those lanes that have some. Raises Unavailable.

    A gap is (queue, above, below), both ends excluded; a lane is (queue, priority, the seq behind which is looked).
    """
    gap_queues, above, below = zip(*gaps, strict=True) if gaps else ((), (), ())
    queues, priorities, floors = zip(*lanes, strict=True) if lanes else ((), (), ())
    rows = await session.rows(
        _DISCOVER,
        (Texts(gap_queues), Int2s(above), Int2s(below), Texts(queues), Int2s(priorities), Int8s(floors)),
    )
    return [(queue, priority) for queue, priority in rows]


async def floor_seconds_ago(session: Session, seconds: float) -> int:
    """The lowest id of the instant `seconds` ago, by the database's clock. Raises Unavailable."""
    row = await session.row(_FLOOR, (seconds,))
    assert row is not None
    return int(row[0])
