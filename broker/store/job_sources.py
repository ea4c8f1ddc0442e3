"""Finds which jobs a list may consist of, newest first, each source by an index and within a bound.

A source looks at a bounded number of rows and says how far it came; what it names may still fail the criteria.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from broker.store.job_records import Criteria
from broker.store.reader import Reader, Row

# Rows that one call of a source looks at.
_SCAN = 2000
# Of `job`, where rows lie in the order in which they are read; and how many that meet the criteria are enough.
_SCAN_JOBS = 10_000
_ENOUGH = 1000
# Of the troubles, which lie far apart.
_SCAN_TROUBLES = 250
_MAX_LANES = 1000
_LEAST_PER_LANE = 20


@dataclass(frozen=True, slots=True)
class IdRange:
    """Ids from `lowest`, included, to `below`, excluded."""

    lowest: int
    below: int


class Candidates(NamedTuple):
    """Jobs, newest first. All ids from `reached` up have been looked at; None: all there are."""

    job_ids: list[int]
    reached: int | None


_NEWEST = """
WITH found AS MATERIALIZED (
  SELECT job_id FROM (
    SELECT job_id, queue, kind, dependency, labels FROM job
    WHERE job_id >= %(lowest)s AND job_id < %(below)s ORDER BY job_id DESC LIMIT %(scan)s) scanned
  WHERE (%(queue)s::text IS NULL OR queue = %(queue)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(dependency)s::text IS NULL OR dependency = %(dependency)s)
    AND (%(labels)s::jsonb IS NULL OR labels @> %(labels)s::jsonb)
  LIMIT %(enough)s
),
edge AS (
  SELECT CASE WHEN count(*) = %(enough)s THEN min(job_id) ELSE (
    SELECT job_id FROM job WHERE job_id >= %(lowest)s AND job_id < %(below)s ORDER BY job_id DESC OFFSET %(scan)s - 1 LIMIT 1) END AS job_id
  FROM found
)
SELECT array_agg(found.job_id ORDER BY found.job_id DESC) FILTER (WHERE found.job_id IS NOT NULL), min(edge.job_id),
  min(edge.job_id) IS NOT NULL
FROM edge LEFT JOIN found ON true
"""

_OF_EXECUTION = """
WITH scanned AS MATERIALIZED (
  SELECT job_id FROM job WHERE execution_id = %(execution_id)s AND job_id >= %(lowest)s AND job_id < %(below)s
  ORDER BY job_id DESC LIMIT %(scan)s
)
SELECT array_agg(job_id ORDER BY job_id DESC), min(job_id), count(*) = %(scan)s FROM scanned
"""

# Jobs that have died, or failed, by their troubles. Of the lowest job perhaps not all events were seen: it is named in any case.
_TROUBLED = """
WITH scanned AS MATERIALIZED (
  SELECT job_id, CASE WHEN %(dead)s THEN kind = 6 ELSE error IS NOT NULL OR kind = 4 END AS is_one FROM event_log
  WHERE kind >= 4 AND job_id > 0 AND job_id >= %(lowest)s AND job_id < %(below)s
  ORDER BY job_id DESC, event_id DESC LIMIT %(scan)s
),
edge AS (SELECT min(job_id) AS job_id FROM scanned)
SELECT array_agg(DISTINCT s.job_id ORDER BY s.job_id DESC) FILTER (WHERE s.is_one OR s.job_id = edge.job_id),
  min(s.job_id), count(*) = %(scan)s
FROM scanned s CROSS JOIN edge
"""

# Jobs in lanes, in one snapshot, so that none that moves is missed. A fresh job's seq in `ready` is its own id: its lanes are read
# from their ends. What came back to `ready` has an index of its own. The last row says how many lanes there were.
_IN_LANES = """
WITH RECURSIVE lanes(queue, priority, number) AS (
  (SELECT queue, priority, 1 FROM ready WHERE %(fresh)s AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    ORDER BY queue, priority DESC LIMIT 1)
  UNION ALL
  SELECT n.queue, n.priority, l.number + 1 FROM lanes l CROSS JOIN LATERAL (
    (SELECT queue, priority FROM ready r WHERE r.queue = l.queue AND r.priority < l.priority ORDER BY priority DESC LIMIT 1)
    UNION ALL
    (SELECT queue, priority FROM ready r WHERE r.queue > l.queue AND %(queue)s::text IS NULL ORDER BY queue, priority DESC LIMIT 1)
    LIMIT 1) n
  WHERE l.number <= %(max_lanes)s
),
counted AS MATERIALIZED (SELECT count(*) AS lanes, greatest(%(least)s, %(scan)s / greatest(count(*), 1)) AS quota FROM lanes),
fresh AS MATERIALIZED (
  SELECT c.*, row_number() OVER (PARTITION BY l.number ORDER BY c.seq DESC) = counted.quota AS full_lane
  FROM lanes l CROSS JOIN counted CROSS JOIN LATERAL (
    SELECT seq, job_id, attempts FROM ready r WHERE r.queue = l.queue AND r.priority = l.priority
      AND r.seq >= %(lowest)s AND r.seq < %(below)s ORDER BY r.seq DESC LIMIT counted.quota) c
),
returned AS MATERIALIZED (
  SELECT job_id, attempts, queue FROM ready WHERE seq <> job_id AND %(waiting)s AND job_id >= %(lowest)s AND job_id < %(below)s
  ORDER BY job_id DESC LIMIT %(scan)s
),
later AS MATERIALIZED (
  SELECT job_id, attempts, queue FROM delayed WHERE %(waiting)s AND job_id >= %(lowest)s AND job_id < %(below)s
  ORDER BY job_id DESC LIMIT %(scan)s
),
held AS MATERIALIZED (
  SELECT job_id, queue FROM lease WHERE %(leased)s AND job_id >= %(lowest)s AND job_id < %(below)s ORDER BY job_id DESC LIMIT %(scan)s
)
SELECT array_agg(job_id) FILTER (WHERE seq = job_id), max(seq) FILTER (WHERE full_lane), coalesce(bool_or(full_lane), false) FROM fresh
UNION ALL
SELECT array_agg(job_id) FILTER (WHERE (attempts > 0 AND %(retry)s OR attempts = 0 AND %(fresh)s)
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)), min(job_id), count(*) = %(scan)s
FROM returned
UNION ALL
SELECT array_agg(job_id) FILTER (WHERE (attempts > 0 AND %(retry)s OR attempts = 0 AND %(fresh)s)
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)), min(job_id), count(*) = %(scan)s
FROM later
UNION ALL
SELECT array_agg(job_id) FILTER (WHERE %(queue)s::text IS NULL OR queue = %(queue)s), min(job_id), count(*) = %(scan)s FROM held
UNION ALL
SELECT NULL, lanes, lanes > %(max_lanes)s FROM counted
"""


async def find_candidates(
    reader: Reader, criteria: Criteria, job_ids: Sequence[int] | None, within: IdRange
) -> Candidates:
    """Jobs that may meet the criteria, from the source that is expected to name the fewest others. Raises Unavailable."""
    if job_ids is not None:
        chosen = {job_id for job_id in job_ids if within.lowest <= job_id < within.below}
        return Candidates(sorted(chosen, reverse=True), None)
    if criteria.execution_id is not None:
        return _candidates(await reader.row(_OF_EXECUTION, _arguments(criteria, within)))
    if criteria.statuses is not None and "done" not in criteria.statuses:
        return await _find_by_status(reader, criteria, criteria.statuses, within)
    if criteria.failure_type is not None:
        return await _find_troubled(reader, criteria, within, dead=False)
    return await _find_newest(reader, criteria, within)


async def _find_newest(reader: Reader, criteria: Criteria, within: IdRange) -> Candidates:
    bounds = {"scan": _SCAN_JOBS, "enough": _ENOUGH}
    return _candidates(await reader.row(_NEWEST, _arguments(criteria, within) | bounds))


async def _find_troubled(reader: Reader, criteria: Criteria, within: IdRange, *, dead: bool) -> Candidates:
    bounds = {"scan": _SCAN_TROUBLES, "dead": dead}
    return _candidates(await reader.row(_TROUBLED, _arguments(criteria, within) | bounds))


async def _find_by_status(
    reader: Reader, criteria: Criteria, statuses: Sequence[str], within: IdRange
) -> Candidates:
    arguments = _arguments(criteria, within)
    found = []
    if set(statuses) != {"dead"}:
        fresh, retry = "queued" in statuses, "retry" in statuses
        *rows, lanes = await reader.rows(
            _IN_LANES,
            arguments
            | {
                "fresh": fresh,
                "retry": retry,
                "waiting": fresh or retry,
                "leased": "leased" in statuses,
                "max_lanes": _MAX_LANES,
                "least": _LEAST_PER_LANE,
            },
        )
        _, _, too_many_lanes = lanes
        if too_many_lanes:
            return await _find_newest(reader, criteria, within)
        found += [_candidates(row) for row in rows]
    if "dead" in statuses:
        found.append(await _find_troubled(reader, criteria, within, dead=True))
    return _merged(found)


def _arguments(criteria: Criteria, within: IdRange) -> dict[str, object]:
    return {
        "lowest": within.lowest,
        "below": within.below,
        "scan": _SCAN,
        "queue": criteria.queue,
        "kind": criteria.kind,
        "execution_id": criteria.execution_id,
        "dependency": criteria.dependency,
        "labels": criteria.labels,
    }


def _candidates(row: Row | None) -> Candidates:
    """From a source's row: ids, the lowest one looked at, whether it stopped there."""
    assert row is not None
    job_ids, lowest, stopped = row
    return Candidates(job_ids or [], lowest if stopped else None)


def _merged(sources: Sequence[Candidates]) -> Candidates:
    """What all sources together have looked at: down to where the first of them stopped."""
    stops = [source.reached for source in sources if source.reached is not None]
    reached = max(stops) if stops else None
    job_ids = {job_id for source in sources for job_id in source.job_ids}
    return Candidates(
        sorted((id_ for id_ in job_ids if reached is None or id_ >= reached), reverse=True), reached
    )
