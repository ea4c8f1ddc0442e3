"""Drops what has been over for longer than its age, by whole partitions; what must stay of them is copied out first.

The oldest day goes together with what was kept of the days before it: the jobs of both that stay, and their events, become the new
partition `kept`. A job stays as long as it waits or runs, has ended too recently, or belongs to an execution of which anything stays:
an execution goes as a whole. All is copied in small steps while work goes on; events written meanwhile are recorded and carried over;
then one short transaction swaps the partitions. Everything runs on one session, whose advisory lock keeps other brokers out: a pass
that broke off leaves tables in no use, which the next one drops before it starts anew.

Must not decide when, nor how fast.
"""

from typing import NamedTuple

from psycopg import errors as pg_errors

from broker.errors import Unavailable
from broker.store.session import Session

# The age is counted in whole days, the partitions' own measure, and an idempotency key needs its job for the first of them.
_CUTOFF = "(noetl.clock() - %b::int4 * interval '1 day')"
# Everybody waits while partitions are swapped: the locks that it waits for, 75 ms each, and its own work may take no longer.
_SWAP_MILLISECONDS = 150

_LOCK = "SELECT pg_try_advisory_lock(hashtext('noetl.retention'))"

# Tables that a swap has replaced, or that a pass which broke off was filling.
_LEFTOVERS = r"""
SELECT relname::text FROM pg_class WHERE relnamespace = 'noetl'::regnamespace AND relkind = 'r' AND NOT relispartition
  AND relname ~ '^(gone_(job|event_log)_(kept_)?|(job|event_log)_kept_)\d{8}$'
"""

# The oldest day of which no job can be younger than the age.
_OLDEST_DAY = f"""
SELECT right(name, 8), upper_bound FROM noetl.partitions('noetl.job')
WHERE name ~ '^job_\\d{{8}}$' AND upper_bound <= noetl.id_at({_CUTOFF}) ORDER BY upper_bound LIMIT 1
"""

_START = "SELECT noetl.start_keeping(%b::text, %b::int8)"
_SURVIVORS = "CREATE TEMPORARY TABLE IF NOT EXISTS survivor (job_id bigint PRIMARY KEY)"
_FORGET_SURVIVORS = "TRUNCATE survivor"

# Jobs in lanes, all in one snapshot, so that none that moves is missed. A fresh job's seq in `ready` is its own id: each lane is read
# from its head to the first that is too young; what came back to `ready` has an index of its own.
_KEEP_IN_LANES = """
INSERT INTO survivor
WITH RECURSIVE lanes(queue, priority) AS (
  (SELECT queue, priority FROM ready ORDER BY queue, priority DESC LIMIT 1)
  UNION ALL
  SELECT n.queue, n.priority FROM lanes l CROSS JOIN LATERAL (
    (SELECT queue, priority FROM ready r WHERE r.queue = l.queue AND r.priority < l.priority ORDER BY priority DESC LIMIT 1)
    UNION ALL
    (SELECT queue, priority FROM ready r WHERE r.queue > l.queue ORDER BY queue, priority DESC LIMIT 1)
    LIMIT 1) n
)
SELECT r.job_id FROM lanes l CROSS JOIN LATERAL (
  SELECT job_id FROM ready WHERE queue = l.queue AND priority = l.priority AND seq < %b::int8 AND seq = job_id OFFSET 0) r
UNION
SELECT job_id FROM ready WHERE seq <> job_id AND job_id < %b::int8
UNION
SELECT job_id FROM delayed WHERE job_id < %b::int8
UNION
SELECT job_id FROM lease WHERE job_id < %b::int8
"""

# Jobs whose end is not old enough, found by the time of their terminal events.
_KEEP_YOUNG = f"""
INSERT INTO survivor
SELECT DISTINCT job_id FROM event_log
WHERE job_id >= 1 AND job_id < %b::int8 AND event_id >= noetl.id_at({_CUTOFF}) AND kind IN (3, 6)
ON CONFLICT DO NOTHING
"""

# All jobs of executions of which anything stays: they run, ended too recently, or have a job that stays or lies in a later partition.
_KEEP_EXECUTIONS = f"""
WITH old AS MATERIALIZED (
  SELECT execution_id, status = 'running' OR finished_at >= {_CUTOFF} AS is_young FROM execution
  WHERE execution_id > %b::int8 AND execution_id < %b::int8 ORDER BY execution_id LIMIT 1000
),
member AS MATERIALIZED (
  SELECT o.execution_id, j.job_id, o.is_young OR j.job_id >= %b::int8 OR s.job_id IS NOT NULL AS stays FROM old o
  CROSS JOIN LATERAL (SELECT job_id FROM job WHERE job.execution_id = o.execution_id OFFSET 0) j
  LEFT JOIN LATERAL (SELECT job_id FROM survivor WHERE survivor.job_id = j.job_id OFFSET 0) s ON true
),
kept AS (
  INSERT INTO survivor
  SELECT job_id FROM member WHERE execution_id IN (SELECT execution_id FROM member WHERE stays) AND job_id < %b::int8
  ON CONFLICT DO NOTHING
)
SELECT max(execution_id) FROM old
"""

# Copies the next survivors whose ids lie within one span, with their events.
_COPY = """
WITH batch AS MATERIALIZED (
  SELECT job_id FROM survivor
  WHERE job_id > %b::int8 AND job_id < (SELECT min(job_id) FROM survivor WHERE job_id > %b::int8) + %b::int8
  ORDER BY job_id LIMIT 1000
),
edge AS MATERIALIZED (SELECT min(job_id) AS lowest, max(job_id) AS highest FROM batch),
body AS (
  INSERT INTO job_kept_{day}
  SELECT * FROM job WHERE job_id = ANY(ARRAY(SELECT job_id FROM batch))
    AND job_id >= (SELECT lowest FROM edge) AND job_id <= (SELECT highest FROM edge)
),
history AS (
  INSERT INTO event_log_kept_{day}
  SELECT e.* FROM event_log e JOIN batch USING (job_id)
  WHERE e.job_id >= (SELECT lowest FROM edge) AND e.job_id <= (SELECT highest FROM edge)
  ORDER BY e.job_id, e.event_id
  ON CONFLICT (event_id) DO NOTHING
)
SELECT highest FROM edge
"""

# No key may stand for a job that is no more. Those of the jobs that go were due long ago, and are gone already unless upkeep is late.
_DROP_KEYS = """
WITH old AS MATERIALIZED (
  SELECT ctid AS place, job_id FROM idempotency WHERE job_id > %b::int8 AND job_id < %b::int8 ORDER BY job_id LIMIT 1000
),
dropped AS (
  DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
    SELECT place FROM old LEFT JOIN LATERAL (SELECT job_id FROM survivor WHERE survivor.job_id = old.job_id OFFSET 0) s ON true
    WHERE s.job_id IS NULL))
)
SELECT max(job_id) FROM old
"""

_KEEP_LATE = "SELECT noetl.keep_late(%b::text)"
_LIMIT_TIME = "SELECT set_config('statement_timeout', %b::text, false)"
_SWAP = "SELECT noetl.swap_kept(%b::text, %b::int8)"

# Executions that ended before the age, and of which no job is left; with their steps and the events that belong to no job. They are
# deleted, not dropped: there are fewer of them than of jobs, each costs much more to run than to delete, and a partition for each day
# of them would be locked by every statement that writes an event.
_DROP_EXECUTIONS = f"""
WITH old AS MATERIALIZED (
  SELECT execution_id, status, finished_at FROM execution
  WHERE execution_id > %b::int8 AND execution_id < (
    SELECT max(upper_bound) FROM noetl.partitions('noetl.job') WHERE name ~ '^job_kept_')
  ORDER BY execution_id LIMIT 500
),
gone AS MATERIALIZED (
  SELECT o.execution_id FROM old o
  LEFT JOIN LATERAL (SELECT job_id FROM job WHERE job.execution_id = o.execution_id LIMIT 1) j ON true
  WHERE o.status <> 'running' AND o.finished_at < {_CUTOFF} AND j.job_id IS NULL
),
steps AS (DELETE FROM execution_step WHERE execution_id = ANY(ARRAY(SELECT execution_id FROM gone))),
events AS (DELETE FROM event_log WHERE job_id = 0 AND execution_id = ANY(ARRAY(SELECT execution_id FROM gone))),
dropped AS (DELETE FROM execution WHERE execution_id = ANY(ARRAY(SELECT execution_id FROM gone)))
SELECT max(execution_id) FROM old
"""

# Names of queues whose jobs are all gone. Who puts jobs in says so once an hour, who keeps some of them once for each partition.
_USE_QUEUES = """
UPDATE queue_name SET used_on = (noetl.clock() AT TIME ZONE 'UTC')::date
WHERE name IN (SELECT DISTINCT queue FROM job_kept_{day})
"""
_DROP_QUEUES = f"DELETE FROM queue_name WHERE used_on < ({_CUTOFF} AT TIME ZONE 'UTC')::date - 2"


class OldDay(NamedTuple):
    """A day whose partitions are to go, as YYYYMMDD, and the lowest id of the day after it."""

    day: str
    below: int


class Busy(Exception):
    """A table is in use by somebody who holds it for long; nothing was changed."""


async def lock(session: Session) -> bool:
    """Whether this session may work, to the end of its connection; False while another broker does. Raises Unavailable."""
    row = await session.row(_LOCK)
    assert row is not None
    return bool(row[0])


async def drop_leftover_tables(session: Session) -> None:
    """Drops the tables that are in no use any more. Raises Unavailable."""
    for (name,) in await session.rows(_LEFTOVERS):
        await session.rows(f"DROP TABLE noetl.{name}")


async def oldest_day(session: Session, days: int) -> OldDay | None:
    """The oldest day that ended so many days ago, or None. Raises Unavailable."""
    row = await session.row(_OLDEST_DAY, (days,))
    return None if row is None else OldDay._make(row)


async def start_keeping(session: Session, old: OldDay) -> None:
    """Makes the tables for what stays. Raises Busy, Unavailable."""
    await _unless_busy(session, _START, old)
    await session.rows(_SURVIVORS)
    await session.rows(_FORGET_SURVIVORS)


async def find_survivors(session: Session, old: OldDay, days: int) -> None:
    """Finds the jobs that stay. Raises Unavailable."""
    await session.rows(_KEEP_IN_LANES, (old.below,) * 4)
    await session.rows(_KEEP_YOUNG, (old.below, days))
    after: int | None = 0
    while after is not None:
        row = await session.row(_KEEP_EXECUTIONS, (days, after, old.below, old.below, old.below))
        assert row is not None
        (after,) = row


async def copy_survivors(session: Session, old: OldDay, after: int, span: int) -> int | None:
    """Copies survivors above the id `after` whose ids lie within `span`; the last one, or None at the end. Raises Unavailable."""
    row = await session.row(_COPY.format(day=old.day), (after, after, span))
    assert row is not None
    last: int | None = row[0]
    return last


async def finish_copy(session: Session, old: OldDay) -> None:
    """Drops the keys of what goes, and lets readers find what stays as fast as before. Raises Unavailable."""
    after: int | None = 0
    while after is not None:
        row = await session.row(_DROP_KEYS, (after, old.below))
        assert row is not None
        (after,) = row
    await session.rows(_USE_QUEUES.format(day=old.day))
    for table in (f"job_kept_{old.day}", f"event_log_kept_{old.day}"):
        await session.rows(f"VACUUM (ANALYZE) noetl.{table}")


async def keep_late_events(session: Session, old: OldDay) -> None:
    """Carries over what was written since it was copied. Raises Unavailable."""
    while (row := await session.row(_KEEP_LATE, (old.day,))) is not None and row[0]:
        pass


async def swap(session: Session, old: OldDay) -> None:
    """Puts what stays in the place of the day and of all that was kept before it. Raises Busy, Unavailable."""
    row = await session.row("SELECT current_setting('statement_timeout')")
    assert row is not None
    await session.rows(_LIMIT_TIME, (f"{_SWAP_MILLISECONDS}ms",))
    try:
        await _unless_busy(session, _SWAP, old)
    finally:
        await session.rows(_LIMIT_TIME, row)


async def drop_executions(session: Session, after: int, days: int) -> int | None:
    """Looks at some executions above the id `after`, and drops those that may go; the last one, or None. Raises Unavailable."""
    row = await session.row(_DROP_EXECUTIONS, (after, days))
    assert row is not None
    last: int | None = row[0]
    return last


async def drop_queue_names(session: Session, days: int) -> None:
    """Drops names of queues of which no job is left. Raises Unavailable."""
    await session.rows(_DROP_QUEUES, (days,))


async def _unless_busy(session: Session, statement: str, old: OldDay) -> None:
    """Runs what others wait for. Raises Busy when that would be too long, Unavailable."""
    try:
        await session.rows(statement, old)
    except Unavailable as error:
        if not isinstance(error.__cause__, pg_errors.LockNotAvailable | pg_errors.QueryCanceled):
            raise
        raise Busy(str(error.__cause__).strip()) from error
