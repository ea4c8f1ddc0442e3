"""Reads the history of jobs and executions, oldest first."""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from broker.store.execution_reads import CLOCK_SLACK, STARTED_DETAIL, EventRow
from broker.store.reader import Reader

# Details beyond this are not fetched for one page; the first event's always is.
_MAX_BYTES = 2 * 1024 * 1024


class EventPage(NamedTuple):
    """Events, oldest first; `is_last`: none follow."""

    events: list[EventRow]
    is_last: bool


# Events as noetl.event shows them, one more than the page has, so that its end is known. The last column: the detail still fitted.
_PAGE = """
WITH page AS MATERIALIZED (
  SELECT * FROM history
  WHERE {scope} AND event_id > %(after)s AND row_id > %(after)s - {slack} AND (%(kinds)s::int2[] IS NULL OR kind = ANY(%(kinds)s))
  ORDER BY event_id LIMIT %(limit)s
),
weighed AS (
  SELECT p.*, sum(coalesce(octet_length(detail), 0)) OVER (ORDER BY event_id) <= %(max_bytes)s
    OR row_number() OVER (ORDER BY event_id) = 1 AS fetched
  FROM page p
)
SELECT event_id, job_id, execution_id, step, noetl.event_type(kind), attempt, noetl.time_of(event_id), worker_id,
  CASE WHEN kind = 2
    THEN {started}
    WHEN fetched THEN detail END,
  fetched
FROM weighed ORDER BY event_id
"""
_OF_JOB = _PAGE.format(scope="job_id = %(job_id)s", started=STARTED_DETAIL, slack=CLOCK_SLACK)
_OF_EXECUTION = _PAGE.format(
    scope="execution_id = %(execution_id)s", started=STARTED_DETAIL, slack=CLOCK_SLACK
)


async def read_job_events(
    reader: Reader, job_id: int, after: int, kinds: Sequence[int] | None, page_size: int
) -> EventPage:
    """Events of a job behind event `after`, of these kinds unless None. Raises Unavailable."""
    return await _read_page(reader, _OF_JOB, {"job_id": job_id}, after, kinds, page_size)


async def read_execution_events(
    reader: Reader, execution_id: int, after: int, kinds: Sequence[int] | None, page_size: int
) -> EventPage:
    """Events of an execution, those of its jobs included; otherwise like `read_job_events`."""
    return await _read_page(reader, _OF_EXECUTION, {"execution_id": execution_id}, after, kinds, page_size)


async def _read_page(
    reader: Reader,
    statement: str,
    scope: dict[str, object],
    after: int,
    kinds: Sequence[int] | None,
    page_size: int,
) -> EventPage:
    rows = await reader.rows(
        statement,
        scope
        | {
            "after": after,
            "kinds": None if kinds is None else [int(kind) for kind in kinds],
            "limit": page_size + 1,
            "max_bytes": _MAX_BYTES,
        },
    )
    fetched = takewhile(lambda row: row[-1], rows[:page_size])
    events = [EventRow._make(row[:-1]) for row in fetched]
    return EventPage(events, len(events) == len(rows))
