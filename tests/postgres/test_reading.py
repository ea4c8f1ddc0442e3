"""What readers see of jobs, events and queues where it takes more than the data plane makes in a test."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from reprise.v1.queue_service_pb2 import JobFilter

from broker.errors import Unavailable
from broker.ids import IDS_PER_MILLISECOND
from broker.service.translate.job_filters import read_job_filter
from broker.store.event_reads import read_execution_events, read_job_events
from broker.store.job_pages import read_job, read_page
from broker.store.job_records import Criteria
from broker.store.job_sources import IdRange
from broker.store.queue_reads import read_queues
from broker.store.reader import Reader, Row
from tests.fixtures_database import MoveClock

_ALL_IDS = IdRange(0, 2**63 - 1)
_EXECUTION_ID = 77

# Both queries of the requirement, word for word but for the id.
_SEED_QUEUE = """SELECT queue_id, status, attempts, max_attempts, available_at
FROM noetl.queue
WHERE execution_id = <ID>;"""
_SEED_EVENT = """SELECT event_type, node_name, result
FROM noetl.event
WHERE execution_id = <ID>
AND event_type IN ('action_started', 'action_error', 'action_retry', 'action_completed');"""

# `count` jobs, a millisecond apart; all of one queue, or each of its own.
_ADD_JOBS = """
WITH base AS (SELECT noetl.id_at(noetl.clock()) AS id),
added AS (
  INSERT INTO noetl.job (job_id, priority, max_attempts, queue, kind, input)
  SELECT base.id + (n::bigint << 22) | (nextval('noetl.id_seq') & 4194303), 0, 1,
    CASE WHEN %(spread)s THEN %(queue)s || n ELSE %(queue)s END, 'k', '{}' FROM base, generate_series(1, %(count)s) n
  RETURNING job_id, queue
),
named AS (INSERT INTO noetl.queue_name SELECT DISTINCT queue FROM added ON CONFLICT DO NOTHING)
SELECT job_id FROM added ORDER BY job_id DESC
"""
_MAKE_READY = """
INSERT INTO noetl.ready (seq, job_id, priority, attempts, returns, queue)
SELECT job_id, job_id, 0, 0, 0, queue FROM noetl.job WHERE queue LIKE %(queue)s
"""
_FINISH = """
INSERT INTO noetl.event_log (event_id, job_id, kind, attempt, max_attempts, worker_id, detail, started_id)
SELECT job_id + 3, job_id, 3, 1, 1, 'worker-1', '"ok"', job_id + 2 FROM noetl.job WHERE queue = %(queue)s
"""


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[Reader]:
    opened = Reader(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def add_jobs(
    database: psycopg.AsyncConnection, queue: str, count: int, *, spread: bool = False
) -> list[int]:
    """Ids of new jobs in no lane, newest first."""
    rows = await (
        await database.execute(_ADD_JOBS, {"queue": queue, "count": count, "spread": spread})
    ).fetchall()
    return [row[0] for row in rows]


async def ids_of_all_pages(reader: Reader, criteria: Criteria, page_size: int = 1000) -> list[list[int]]:
    pages: list[list[int]] = []
    below: int | None = _ALL_IDS.below
    while below is not None:
        page = await read_page(reader, criteria, None, IdRange(0, below), page_size, full=False)
        pages.append([job.record.job_id for job in page.jobs])
        below = page.next_below
    return pages


async def test_a_page_looks_at_a_bounded_number_of_jobs_and_the_list_still_ends(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    oldest = await add_jobs(database, "rare", 1)
    await add_jobs(database, "common", 10_500)

    pages = await ids_of_all_pages(reader, Criteria(queue="rare"))

    assert pages == [[], oldest]


@pytest.mark.parametrize("queues", [3, 1100])
async def test_waiting_jobs_of_many_queues_are_listed_newest_first(
    reader: Reader, database: psycopg.AsyncConnection, queues: int
) -> None:
    jobs = await add_jobs(database, "q", queues, spread=True)
    await database.execute(_MAKE_READY, {"queue": "q%"})

    pages = await ids_of_all_pages(reader, Criteria(statuses=("queued",)), page_size=100)

    assert [job_id for page in pages for job_id in page] == jobs


async def test_jobs_far_apart_are_all_found_with_what_their_runs_left(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    jobs = await add_jobs(database, "done", 25_000)
    await database.execute(_FINISH, {"queue": "done"})
    wanted, found = jobs[::2500], []
    below: int | None = _ALL_IDS.below

    while below is not None:
        page = await read_page(reader, Criteria(), wanted, IdRange(0, below), 100, full=True)
        found += [(job.record.job_id, job.run.worker_id, job.run.result) for job in page.jobs]
        below = page.next_below

    assert found == [(job_id, "worker-1", '"ok"') for job_id in wanted]


async def test_few_jobs_are_counted_and_many_estimated(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    await add_jobs(database, "small", 2_000)
    await database.execute(_MAKE_READY, {"queue": "small"})
    (alone,) = await read_queues(reader)
    await add_jobs(database, "large", 80_000)
    await database.execute(_MAKE_READY, {"queue": "large"})
    large, small = await read_queues(reader)

    assert (alone.queued, alone.estimated) == (2_000, False)
    assert (small.queued, small.estimated) == (2_000, False)
    assert 60_000 <= large.queued <= 100_000
    assert large.estimated


@pytest.mark.parametrize("dead", [4_000, 20_000])
async def test_dead_jobs_of_a_day_that_was_analyzed_while_quiet_are_counted_or_estimated(
    reader: Reader, database: psycopg.AsyncConnection, dead: int
) -> None:
    await database.execute("ANALYZE noetl.event_log")
    await add_jobs(database, "q", dead)
    await database.execute(
        """INSERT INTO noetl.event_log (event_id, job_id, kind, attempt, detail)
        SELECT job_id + 1, job_id, 6, 1, '{}' FROM noetl.job"""
    )

    (queue,) = await read_queues(reader)

    assert queue.estimated == (dead > 5_000)
    assert dead / 1.5 <= queue.dead <= dead * 1.5
    assert queue.dead == dead or queue.estimated


async def test_a_queue_of_few_jobs_beside_a_large_one_shows_where_each_is(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    await add_jobs(database, "large", 60_000)
    await database.execute(_MAKE_READY, {"queue": "large"})
    fresh, failed, late = await add_jobs(database, "small", 3)
    await database.execute("INSERT INTO noetl.ready VALUES (%s, %s, 0, 0, 0, 'small')", (fresh, fresh))
    await database.execute("INSERT INTO noetl.ready VALUES (%s, %s, 0, 1, 0, 'small')", (failed + 1, failed))
    await database.execute("INSERT INTO noetl.delayed VALUES (noetl.clock(), %s, 0, 1, 'small')", (late,))

    _, small = await read_queues(reader)

    assert (small.queued, small.retry, small.scheduled, small.estimated) == (1, 2, 0, False)
    assert small.oldest_due_age is not None


async def test_both_queries_of_the_requirement_run_as_they_stand_and_show_what_happened_in_order(
    database: psycopg.AsyncConnection,
) -> None:
    (job_id,) = await add_jobs(database, "default", 1)
    await database.execute(
        "UPDATE noetl.job SET execution_id = %s, step = 'fail_task', max_attempts = 3", (_EXECUTION_ID,)
    )
    await database.execute(
        """INSERT INTO noetl.event_log (event_id, job_id, execution_id, kind, attempt, max_attempts, step, worker_id, detail)
        VALUES (%(id)s + 3, %(id)s, 77, 5, 1, NULL, 'fail_task', NULL, '{"attempt": 1, "max_attempts": 3}'),
          (%(id)s + 1, %(id)s, 77, 2, 1, 3, 'fail_task', 'worker-1', NULL),
          (%(id)s + 2, %(id)s, 77, 4, 1, NULL, 'fail_task', NULL, '{"attempt": 1, "error": "Test retry"}')""",
        {"id": job_id},
    )
    await database.execute(
        "INSERT INTO noetl.delayed VALUES ('2030-01-01 00:00:01+00', %s, 0, 1, 'default')", (job_id,)
    )
    database.row_factory = dict_row  # type: ignore[assignment]

    async def rows(query: str) -> list[dict[str, object]]:
        found = await (await database.execute(query.replace("<ID>", str(_EXECUTION_ID)).encode())).fetchall()
        return [dict(row) for row in found]

    (job,) = await rows(_SEED_QUEUE)
    events = await rows(_SEED_EVENT)

    assert str(job.pop("available_at")).startswith("2030-01-01")
    assert job == {"queue_id": job_id, "status": "retry", "attempts": 1, "max_attempts": 3}
    assert events == [
        {
            "event_type": "action_started",
            "node_name": "fail_task",
            "result": {"attempt": 1, "max_attempts": 3, "is_retry": False, "worker_id": "worker-1"},
        },
        {
            "event_type": "action_error",
            "node_name": "fail_task",
            "result": {"attempt": 1, "error": "Test retry"},
        },
        {"event_type": "action_retry", "node_name": "fail_task", "result": {"attempt": 1, "max_attempts": 3}},
    ]


@pytest.mark.parametrize("execution_id", [None, _EXECUTION_ID])
@pytest.mark.parametrize(("last_kind", "status"), [(3, "done"), (6, "dead")])
async def test_the_end_of_a_job_is_seen_whether_it_belongs_to_an_execution_or_not(
    database: psycopg.AsyncConnection, execution_id: int | None, last_kind: int, status: str
) -> None:
    (job_id,) = await add_jobs(database, "default", 1)
    await database.execute("UPDATE noetl.job SET execution_id = %s", (execution_id,))
    await database.execute(
        """INSERT INTO noetl.event_log (event_id, job_id, execution_id, kind, attempt)
        VALUES (%(id)s + 1, %(id)s, %(execution_id)s, 6, 1), (%(id)s + 2, %(id)s, %(execution_id)s, %(kind)s, 2)""",
        {"id": job_id, "execution_id": execution_id, "kind": last_kind},
    )

    found = await (await database.execute("SELECT status, attempts, finished_at FROM noetl.queue")).fetchall()

    assert [(row[0], row[1], row[2] is not None) for row in found] == [(status, 2, True)]


async def test_a_read_of_a_database_that_is_away_is_unavailable(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    await read_job(reader, 1, full=False)
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reprise-reader'"
    )

    with pytest.raises(Unavailable):
        await read_job(reader, 1, full=False)


async def test_a_reading_connection_cannot_write(reader: Reader) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        await reader.rows("DELETE FROM job RETURNING job_id")


def blocks_touched(plan: dict[str, Any]) -> int:
    """Blocks that a statement has touched, found in memory or not."""
    blocks: int = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return blocks


def tables_read(plan: dict[str, Any]) -> set[str]:
    """The tables that a statement has looked into, partitions by their own names."""
    own = {plan["Relation Name"]} if "Relation Name" in plan and plan["Actual Loops"] else set()
    return own.union(*map(tables_read, plan.get("Plans", ())))


class Explaining(Reader):
    """A reader that counts the blocks that each of its statements touches, and tells the tables."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.blocks = 0
        self.tables: set[str] = set()

    async def rows(
        self, statement: str, arguments: Mapping[str, object] | Sequence[object] = ()
    ) -> list[Row]:
        ((plan,),) = await super().rows(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", arguments)
        self.blocks += blocks_touched(plan[0]["Plan"])
        self.tables |= tables_read(plan[0]["Plan"])
        return await super().rows(statement, arguments)


async def test_a_read_touches_few_blocks_however_many_jobs_there_are(
    database_url: str, database: psycopg.AsyncConnection
) -> None:
    done = await add_jobs(database, "done", 30_000)
    await database.execute(_FINISH, {"queue": "done"})
    await database.execute("VACUUM ANALYZE")
    reader = Explaining(database_url)
    await reader.open()
    touched = {}

    for name, read in {
        "a job": read_job(reader, done[15_000], full=True),
        "its events": read_job_events(reader, done[15_000], 0, None, 100),
        "a hundred jobs far apart": read_page(reader, Criteria(), done[::300], _ALL_IDS, 100, full=True),
    }.items():
        reader.blocks = 0
        await read
        touched[name] = reader.blocks
    await reader.close()

    # Measured 13, 4 and 900; the events alone have some 720.
    assert touched["a job"] < 50
    assert touched["its events"] < 20
    assert touched["a hundred jobs far apart"] < 1100


@pytest.fixture
async def explaining(database_url: str) -> AsyncIterator[Explaining]:
    opened = Explaining(database_url)
    await opened.open()
    yield opened
    await opened.close()


# So many more jobs in each lane.
_FILL_LANES = """
WITH base AS (SELECT noetl.next_id() AS id),
later AS (INSERT INTO noetl.delayed SELECT noetl.clock(), id + n, 0, 0, 'q' FROM base, generate_series(1, 60000) n),
held AS (
  INSERT INTO noetl.lease (lease_id, job_id, expires_at, lease_seconds, priority, attempt, returns, queue)
  SELECT id + n, id + n, noetl.clock(), 30, 0, 1, 0, 'q' FROM base, generate_series(1, 40000) n)
INSERT INTO noetl.ready SELECT id + n, id + n, 0, 0, 0, 'q' FROM base, generate_series(1, 60000) n
"""
# So many more jobs that have died.
_FILL_DEAD = """
WITH base AS (SELECT noetl.next_id() AS id),
body AS (
  INSERT INTO noetl.job (job_id, priority, max_attempts, queue, kind, input)
  SELECT id + n, 0, 1, 'q', 'k', '{}' FROM base, generate_series(1, 10000) n)
INSERT INTO noetl.event_log (event_id, job_id, kind, attempt, detail)
SELECT id + n, id + n, 6, 1, '{}' FROM base, generate_series(1, 10000) n
"""


@pytest.mark.parametrize("fill", [_FILL_LANES, _FILL_DEAD], ids=["in lanes", "dead"])
async def test_a_list_of_queues_touches_no_more_blocks_where_there_are_twice_as_many_jobs(
    explaining: Explaining, database: psycopg.AsyncConnection, fill: str
) -> None:
    await database.execute("INSERT INTO noetl.queue_name VALUES ('q')")
    touched = []
    for _ in range(2):
        await database.execute(fill.encode())
        await database.execute("VACUUM ANALYZE")
        explaining.blocks = 0
        await read_queues(explaining)
        touched.append(explaining.blocks)

    few, many = touched
    assert many < 1.2 * few


async def test_both_queries_of_the_requirement_touch_few_blocks_however_many_jobs_there_are(
    database: psycopg.AsyncConnection,
) -> None:
    done, held = await add_jobs(database, "done", 20_000), await add_jobs(database, "held", 20_000)
    # Five jobs in each execution, whose ids are those of its first job: in that of the middle one three have ended.
    await database.execute(
        """UPDATE noetl.job SET execution_id = x.execution_id, step = 's' FROM (
          SELECT job_id, min(job_id) OVER (PARTITION BY number / 5) AS execution_id
          FROM (SELECT job_id, row_number() OVER (ORDER BY job_id) + 1 AS number FROM noetl.job) n) x
        WHERE job.job_id = x.job_id"""
    )
    await database.execute(_FINISH, {"queue": "done"})
    await database.execute(
        """UPDATE noetl.event_log SET execution_id = job.execution_id FROM noetl.job WHERE job.job_id = event_log.job_id"""
    )
    await database.execute(
        """INSERT INTO noetl.lease (lease_id, job_id, expires_at, lease_seconds, priority, attempt, returns, queue, worker_id)
        SELECT job_id + 1, job_id, noetl.clock(), 30, 0, 1, 0, queue, 'worker-1' FROM noetl.job WHERE queue = 'held'"""
    )
    await database.execute("VACUUM ANALYZE")
    touched = {}

    for job_id in (done[10_000], held[10_000]):
        row = await (
            await database.execute("SELECT execution_id FROM noetl.job WHERE job_id = %s", (job_id,))
        ).fetchone()
        assert row is not None
        for query in (_SEED_QUEUE, _SEED_EVENT):
            statement = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query.replace('<ID>', str(row[0]))}"
            ((plan,),) = await (await database.execute(statement.encode())).fetchall()
            touched[job_id, query] = blocks_touched(plan[0]["Plan"])

    # Measured 138 at most; the jobs alone have some 700.
    assert max(touched.values()) < 200


# Every second job, by its millisecond, has died; the others wait.
_KILL_HALF = """
INSERT INTO noetl.event_log (event_id, job_id, kind, attempt, detail, error)
SELECT job_id + 3, job_id, 6, 1, '{}', '{"error_type": "ValueError"}' FROM noetl.job WHERE (job_id >> 22) % 2 = 0
"""
_MAKE_REST_READY = """
INSERT INTO noetl.ready (seq, job_id, priority, attempts, returns, queue)
SELECT job_id, job_id, 0, 0, 0, queue FROM noetl.job WHERE (job_id >> 22) % 2 = 1
"""


@pytest.mark.parametrize(
    ("criteria", "halves"),
    [
        (Criteria(), (0, 1)),
        (Criteria(queue="q"), (0, 1)),
        (Criteria(execution_id=_EXECUTION_ID), (0, 1)),
        (Criteria(statuses=("queued", "leased", "retry")), (1,)),
        (Criteria(statuses=("dead",)), (0,)),
        (Criteria(failure_type="ValueError"), (0,)),
    ],
    ids=["any", "queue", "execution", "waiting", "dead", "failure type"],
)
async def test_a_list_of_jobs_created_in_some_time_reads_nothing_of_other_times(
    explaining: Explaining,
    database: psycopg.AsyncConnection,
    move_clock: MoveClock,
    criteria: Criteria,
    halves: Sequence[int],
) -> None:
    days = []
    for _ in range(3):
        days.append(await add_jobs(database, "q", 3_000))
        await move_clock(86_400)
    await database.execute("UPDATE noetl.job SET execution_id = %s", (_EXECUTION_ID,))
    await database.execute(_KILL_HALF)
    await database.execute(_MAKE_REST_READY)
    await database.execute("VACUUM ANALYZE")
    jobs = days[1][1_000:1_010]
    row = await (
        await database.execute(
            "SELECT to_char(noetl.time_of(%s), 'YYYYMMDD'), noetl.time_of(%s), noetl.time_of(%s)",
            (jobs[0], jobs[-1] - IDS_PER_MILLISECOND, jobs[0] + IDS_PER_MILLISECOND),
        )
    ).fetchone()
    assert row is not None
    day, after, before = row
    asked = JobFilter()
    asked.created_after.FromDatetime(after)
    asked.created_before.FromDatetime(before)
    within = read_job_filter(asked, "filter", []).within

    page = await read_page(explaining, criteria, None, within, 100, full=False)

    found = [job.record.job_id for job in page.jobs]
    partitions = {table for table in explaining.tables if re.fullmatch(r"(job|event_log)_.+", table)}
    assert found == [job_id for job_id in jobs if (job_id >> 22) % 2 in halves]
    assert partitions <= {f"job_{day}", f"event_log_{day}"}
    # Measured 154 at most.
    assert explaining.blocks < 250


# Makes a connection's counters visible to others when the statement returns.
_FLUSH_STATISTICS = "SELECT pg_stat_force_next_flush()::text"
# Tables of which no read may look at every row, and how many rows were looked at one after the other.
_READ_IN_SEQUENCE = """
SELECT relname, seq_tup_read FROM pg_stat_user_tables
WHERE relname ~ '^(job|event_log)_[0-9]+$|^(ready|delayed)$' AND seq_tup_read > 0
"""


async def test_no_read_looks_at_every_row_of_a_large_table(
    reader: Reader, database: psycopg.AsyncConnection
) -> None:
    waiting, done = await add_jobs(database, "waiting", 20_000), await add_jobs(database, "done", 20_000)
    await database.execute(_MAKE_READY, {"queue": "waiting"})
    await database.execute(
        """INSERT INTO noetl.delayed (due_at, job_id, priority, attempts, queue)
        SELECT noetl.clock(), job_id, 0, 1, 'later' FROM noetl.ready"""
    )
    await database.execute(_FINISH, {"queue": "done"})
    await database.execute("VACUUM ANALYZE")
    await database.execute(_FLUSH_STATISTICS)
    await database.execute("SELECT pg_stat_reset()")
    statuses = ("queued", "leased", "retry", "dead", "done")
    criteria = [
        Criteria(),
        *(Criteria(statuses=(status,)) for status in statuses),
        Criteria(queue="done"),
        Criteria(kind="other"),
        Criteria(execution_id=_EXECUTION_ID),
        Criteria(dependency="smtp"),
        Criteria(labels='{"tenant": "acme"}'),
        Criteria(failure_type="ValueError"),
    ]

    for wanted in criteria:
        await read_page(reader, wanted, None, _ALL_IDS, 100, full=False)
    await read_page(reader, Criteria(), done[::1000], _ALL_IDS, 100, full=False)
    for job_id in (waiting[0], done[0]):
        await read_job(reader, job_id, full=True)
        await read_job_events(reader, job_id, 0, None, 100)
    await read_execution_events(reader, _EXECUTION_ID, 0, None, 100)
    await reader.rows(_FLUSH_STATISTICS)

    assert await (await database.execute(_READ_IN_SEQUENCE)).fetchall() == []
