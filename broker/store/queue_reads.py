"""Reads how full queues are. Lanes of more than about fifty thousand rows are sampled: what is then not counted apart is an estimate."""

from dataclasses import dataclass
from datetime import timedelta

from broker.store.reader import Reader

MAX_QUEUES = 10_000
# Pages of a lane that are read in full; of a larger lane as many, spread over it.
_PAGES = 400
_TROUBLES = 5000
# Jobs of `ready` that are counted one by one where it is sampled, over all queues; of one queue at most MAX_COUNTED.
_ALL_COUNTED = 50_000
_MAX_COUNTED = 10_000

_SIZES = """
SELECT pg_relation_size('noetl.ready') / 8192, pg_relation_size('noetl.delayed') / 8192, pg_relation_size('noetl.lease') / 8192
"""

_NAMES = "SELECT name FROM queue_name ORDER BY name LIMIT %(limit)s"

# Rows per queue and lane, and the age of the oldest job that could run.
_LANES = """
SELECT 'ready', queue, count(*) FILTER (WHERE attempts = 0) / %(ready)s, count(*) FILTER (WHERE attempts > 0) / %(ready)s, 0, 0,
  greatest(noetl.clock() - noetl.time_of(min(seq)), interval '0')
FROM ready TABLESAMPLE SYSTEM (100 * %(ready)s::float8) GROUP BY queue
UNION ALL
SELECT 'delayed', queue, 0, count(*) FILTER (WHERE attempts > 0) / %(delayed)s, count(*) FILTER (WHERE attempts = 0) / %(delayed)s, 0, NULL
FROM delayed TABLESAMPLE SYSTEM (100 * %(delayed)s::float8) GROUP BY queue
UNION ALL
SELECT 'lease', queue, 0, 0, 0, count(*) / %(lease)s, NULL FROM lease TABLESAMPLE SYSTEM (100 * %(lease)s::float8) GROUP BY queue
"""

# Waiting jobs of each queue, one by one, where there are fewer than `most`.
_COUNTED = """
SELECT n.name, c.jobs, greatest(noetl.clock() - noetl.time_of(c.oldest), interval '0') FROM unnest(%(names)s::text[]) n(name)
CROSS JOIN LATERAL (
  SELECT count(*) AS jobs, min(seq) AS oldest FROM (SELECT seq FROM ready r WHERE r.queue = n.name LIMIT %(most)s) waiting) c
WHERE c.jobs < %(most)s
"""

# Those of them that came back, at most `most` over all queues; and how many of them have failed before.
_RETURNED = """
SELECT queue, count(*) FILTER (WHERE attempts > 0), count(*)
FROM (SELECT queue, attempts FROM ready WHERE seq <> job_id ORDER BY job_id LIMIT %(most)s) came_back GROUP BY queue
"""

# Dead jobs per queue among the newest troubles: those whose latest trouble is their end. Where there are more troubles than are
# looked at, the pages of their index say how many: so many in each as when statistics were made, but 200 at least.
_DEAD = """
WITH scanned AS MATERIALIZED (
  SELECT job_id, event_id, kind FROM event_log WHERE kind >= 4 AND job_id > 0 ORDER BY job_id DESC, event_id DESC LIMIT %(limit)s
),
latest AS MATERIALIZED (SELECT DISTINCT ON (job_id) job_id, kind FROM scanned ORDER BY job_id DESC, event_id DESC),
share AS (
  SELECT CASE WHEN count(*) < %(limit)s THEN 1 ELSE least(1, count(*) / greatest((
    SELECT sum(greatest(pg_relation_size(c.oid) / 8192 - 1, 0) * greatest(c.reltuples / greatest(c.relpages - 1, 1), 200))
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_index x ON x.indexrelid = c.oid
    WHERE i.inhparent = 'noetl.event_log_trouble'::regclass AND x.indrelid <> 'noetl.event_log_executions'::regclass), 1)) END AS seen,
    count(*) = %(limit)s AS is_part
  FROM scanned
)
SELECT j.queue, round(count(*) / min(share.seen))::int8, bool_or(share.is_part)
FROM latest CROSS JOIN share CROSS JOIN LATERAL (SELECT queue FROM job WHERE job.job_id = latest.job_id OFFSET 0) j
WHERE latest.kind = 6 GROUP BY j.queue
"""


@dataclass(slots=True)
class QueueRecord:
    """How many jobs of a queue are where; `oldest_due_age` is None where none waits to be leased."""

    name: str
    queued: int = 0
    retry: int = 0
    scheduled: int = 0
    leased: int = 0
    dead: int = 0
    oldest_due_age: timedelta | None = None
    estimated: bool = False  # some of the counts are


async def read_queues(reader: Reader) -> list[QueueRecord]:
    """Every queue that was ever used, by name, at most `MAX_QUEUES`. Raises Unavailable."""
    queues = {row[0]: QueueRecord(row[0]) for row in await reader.rows(_NAMES, {"limit": MAX_QUEUES})}
    sizes = await reader.row(_SIZES)
    assert sizes is not None
    ready, delayed, lease = (min(1.0, _PAGES / max(1, pages)) for pages in sizes)
    shares = {"ready": ready, "delayed": delayed, "lease": lease}
    counted = await _count_waiting(reader, queues) if ready < 1 else set()
    for lane, name, queued, retry, scheduled, leased, age in await reader.rows(_LANES, shares):
        queue = queues.get(name)
        if queue is not None and not (lane == "ready" and name in counted):
            queue.queued += round(queued)
            queue.retry += round(retry)
            queue.scheduled += round(scheduled)
            queue.leased += round(leased)
            queue.oldest_due_age = age if age is not None else queue.oldest_due_age
    for name, queue in queues.items():
        queue.estimated = delayed < 1 or lease < 1 or (ready < 1 and name not in counted)
    for name, dead, is_estimate in await reader.rows(_DEAD, {"limit": _TROUBLES}):
        if name in queues:
            queues[name].dead = dead
            queues[name].estimated |= is_estimate
    return list(queues.values())


async def _count_waiting(reader: Reader, queues: dict[str, QueueRecord]) -> set[str]:
    """The queues whose waiting jobs were counted one by one, as they are few; their records now say how many."""
    returned = await reader.rows(_RETURNED, {"most": _MAX_COUNTED})
    if sum(jobs for _, _, jobs in returned) == _MAX_COUNTED:
        return set()
    failed: dict[str, int] = {name: jobs for name, jobs, _ in returned}
    most = min(_MAX_COUNTED, _ALL_COUNTED // max(1, len(queues)))
    few = await reader.rows(_COUNTED, {"names": list(queues), "most": most})
    for name, jobs, age in few:
        queues[name].retry = failed.get(name, 0)
        queues[name].queued = jobs - queues[name].retry
        queues[name].oldest_due_age = age
    return {name for name, _, _ in few}
