"""Fills a migrated database with the history of weeks: done jobs with their events, delayed jobs, jobs that wait in other queues.

`python -m bench.scale_data DATABASE_URL` writes by set-based SQL straight into the tables, in the physical order that a broker would
have written in. Ids are spread evenly over the days before now, each event behind its job's. Must only be run on a database of its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

import click
import psycopg

_CHUNK = 500_000
_DAY_MILLISECONDS = 86_400_000

# Partitions of days gone by, by the product's own function: for the length of this transaction the clock goes slow.
_READ_CLOCK = "SELECT pg_get_functiondef('noetl.clock'::regproc)"
_SLOW_CLOCK = """
CREATE OR REPLACE FUNCTION noetl.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT statement_timestamp() - interval '{days} days' $$
"""
_MAKE_PARTITIONS = "SELECT noetl.ensure_partitions({days} + 1)"

# Milliseconds since 2025 of the first job of all; the last one came a minute ago.
_FIRST_AT = "SELECT noetl.id_at(now() - interval '1 minute' - %s * interval '1 day') >> 22"

# The id of the job of number n in its lane, where one comes every `step` milliseconds from the instant `base` on; and of its
# events, `lag` milliseconds later.
_IDS = """
CREATE FUNCTION pg_temp.job_at(n int8, lane int4, base int8, step float8) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
  SELECT (base + (n * step)::int8) << 22 | ((n * 4 + lane) & 4194303) $$;
CREATE FUNCTION pg_temp.event_of(job_id int8, number int4, lag float8) RETURNS int8 LANGUAGE sql IMMUTABLE AS $$
  SELECT ((job_id >> 22) + lag::int8) << 22 | ((job_id * 3 + number) & 4194303) $$;
"""

# Of a hundred jobs in a row one is a step of an execution of five; of five hundred one is dead and one was done at its second attempt.
_JOBS = """
INSERT INTO noetl.job (job_id, execution_id, priority, max_attempts, queue, kind, step, input, dependency, labels)
SELECT pg_temp.job_at(n, 0, %(base)s, %(step)s),
  CASE WHEN n %% 100 = 0 THEN pg_temp.job_at(n / 500 * 500, 0, %(base)s, %(step)s) - 1 END, 0, 3,
  'past-' || n %% 20, 'kind-' || n %% 5, CASE WHEN n %% 100 = 0 THEN 'step-' || n %% 500 / 100 END,
  '{"payload":"' || repeat('x', 186) || '"}', CASE WHEN n %% 50 = 0 THEN 'api-' || n %% 7 END,
  CASE WHEN n %% 10 = 0 THEN jsonb_build_object('tenant', 't' || n %% 1000) END
FROM generate_series(%(first)s::int8, %(last)s::int8) n
"""

# At one instant one job is enqueued, one from 40 before starts, and one from 80 before ends. What ends an attempt tells its start.
_EVENTS = """
WITH past AS (
  SELECT m, pg_temp.job_at(m, 0, %(base)s, %(step)s) AS job_id FROM generate_series(%(first)s::int8, %(last)s::int8) m
)
INSERT INTO noetl.event_log (
  event_id, job_id, execution_id, lease_id, kind, attempt, max_attempts, step, worker_id, detail, started_id, error)
SELECT pg_temp.event_of(job_id, 3, 80 * %(step)s + e.number), job_id,
  CASE WHEN m %% 100 = 0 THEN pg_temp.job_at(m / 500 * 500, 0, %(base)s, %(step)s) - 1 END, s.started_id, e.kind, e.attempt, 3,
  CASE WHEN m %% 100 = 0 THEN 'step-' || m %% 500 / 100 END, 'worker-' || m %% 50,
  CASE e.kind WHEN 3 THEN '{"ok":true}'
    WHEN 5 THEN '{"attempt":1,"max_attempts":3,"reason":"any_failure"}'
    WHEN 6 THEN '{"attempt":1,"max_attempts":3,"reason":"stop_when"}' END,
  s.started_id,
  CASE WHEN e.kind <> 3 THEN '{"attempt":1,"error":"no answer","error_type":"Error' || m %% 3000 / 1000 || '"}' END
FROM past CROSS JOIN LATERAL (
  SELECT 3 AS kind, 1 AS attempt, 0 AS number WHERE m %% 500 NOT IN (250, 251)
  UNION ALL SELECT kind, attempt, number FROM (VALUES (5, 1, 1), (3, 2, 3)) retried(kind, attempt, number) WHERE m %% 500 = 251
  UNION ALL SELECT 6, 1, 1 WHERE m %% 500 = 250
) e CROSS JOIN LATERAL (
  SELECT CASE e.attempt WHEN 1 THEN pg_temp.event_of(job_id, 2, 40 * %(step)s)
    ELSE pg_temp.event_of(job_id, 3, 80 * %(step)s + 2) END AS started_id
) s
ORDER BY 1
"""

_EXECUTIONS = """
WITH past AS (
  SELECT n, pg_temp.job_at(n, 0, %(base)s, %(step)s) - 1 AS id FROM generate_series(%(first)s::int8, %(last)s::int8) n WHERE n %% 500 = 0
),
started AS (
  INSERT INTO noetl.execution (execution_id, path, version, status, workload, given, finished_at)
  SELECT id, 'flows/' || n %% 40, 1, 'completed', '{}', '{}', noetl.time_of(id) + interval '1 minute' FROM past
),
steps AS (
  INSERT INTO noetl.execution_step (execution_id, step, job_id)
  SELECT id, 'step-' || s, pg_temp.job_at(n + s * 100, 0, %(base)s, %(step)s) FROM past, generate_series(0, 4) s
)
INSERT INTO noetl.event_log (event_id, job_id, execution_id, kind, attempt, step)
SELECT id + (s.number::int8 << 22), 0, id, s.kind, 0, s.step FROM past CROSS JOIN LATERAL (
  SELECT 10 AS kind, 0 AS number, NULL::text AS step
  UNION ALL SELECT kind, number + kind - 10, 'step-' || number FROM generate_series(0, 4) number, (VALUES (11), (12)) k(kind)
  UNION ALL SELECT 14, 10000, NULL) s
"""

# Jobs that were put in and have not run: those of `ready` in a hundred queues, those of `delayed` due from an hour on over a month.
_ENQUEUED = """
WITH put AS MATERIALIZED (
  SELECT n, pg_temp.job_at(n, {number}, %(base)s, %(step)s) AS job_id, '{lane}-' || n %% 100 AS queue
  FROM generate_series(%(first)s::int8, %(last)s::int8) n
),
body AS (
  INSERT INTO noetl.job (job_id, priority, max_attempts, queue, kind, input)
  SELECT job_id, 0, 3, queue, 'kind-9', '{{"payload":"' || repeat('x', 186) || '"}}' FROM put
)
"""
_WAITING = (
    _ENQUEUED.format(lane="waiting", number=1)
    + "INSERT INTO noetl.ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, 0, job_id, job_id, 0, 0 FROM put"
)
_DELAYED = (
    _ENQUEUED.format(lane="delayed", number=2)
    + """INSERT INTO noetl.delayed (due_at, job_id, priority, attempts, queue)
SELECT now() + interval '1 hour' + (n * 7919 %% %(total)s) * (interval '30 days' / %(total)s), job_id, 0, 0, queue FROM put"""
)

_NAMES = """
INSERT INTO noetl.queue_name SELECT 'past-' || n FROM generate_series(0, 19) n
UNION ALL SELECT lane || n FROM (VALUES ('waiting-'), ('delayed-')) l(lane), generate_series(0, 99) n ON CONFLICT DO NOTHING
"""


class Scale(NamedTuple):
    """How much history: jobs that have ended, over how many days, and jobs that have not run yet."""

    done: int = 10_000_000
    delayed: int = 1_000_000
    waiting: int = 1_000_000
    days: int = 4


_WHOLE = Scale()


def fill(database_url: str, scale: Scale) -> Iterator[str]:
    """Writes it all, says what it has done so far, and ends with vacuumed and analyzed tables. The database must be migrated."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        _make_partitions(connection, scale.days)
        connection.execute(_IDS)
        connection.execute(_NAMES)
        ((base,),) = connection.execute(_FIRST_AT, (scale.days,)).fetchall()
        # An execution's jobs are 500 numbers in a row; chunks keep them together.
        parts = (
            (scale.done, (_JOBS, _EVENTS, _EXECUTIONS)),
            (scale.waiting, (_WAITING,)),
            (scale.delayed, (_DELAYED,)),
        )
        for total, statements in parts:
            step = scale.days * _DAY_MILLISECONDS / total
            for first in range(0, total, _CHUNK):
                last = min(first + _CHUNK, total) - 1
                numbers = {"first": first, "last": last, "total": total, "base": base, "step": step}
                with connection.transaction():
                    for statement in statements:
                        connection.execute(statement.encode(), numbers)
                yield f"{last + 1} of {total}"
        connection.execute("VACUUM (ANALYZE)")
        yield "vacuumed and analyzed"


def _make_partitions(connection: psycopg.Connection, days: int) -> None:
    row = connection.execute(_READ_CLOCK).fetchone()
    assert row is not None
    with connection.transaction():
        connection.execute(_SLOW_CLOCK.format(days=days).encode())
        connection.execute(_MAKE_PARTITIONS.format(days=days).encode())
        connection.execute(row[0].encode())


@click.command()
@click.argument("database_url")
@click.option("--done", default=_WHOLE.done, show_default=True, help="Jobs that have ended.")
@click.option("--delayed", default=_WHOLE.delayed, show_default=True, help="Jobs that wait for a time.")
@click.option("--waiting", default=_WHOLE.waiting, show_default=True, help="Jobs that wait in other queues.")
@click.option("--days", default=_WHOLE.days, show_default=True, help="Over how many days they came.")
def main(database_url: str, done: int, delayed: int, waiting: int, days: int) -> None:
    """Fill the database at DATABASE_URL, which must be migrated, with history."""
    for progress in fill(database_url, Scale(done, delayed, waiting, days)):
        click.echo(progress)


if __name__ == "__main__":
    main()
