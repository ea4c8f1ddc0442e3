"""What has ended goes a set age after its end, by whole partitions; what still lives moves out of their way, and nobody notices."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from broker.job import Grant, NewJob, Outcome, Taker
from broker.lifecycle import Lifecycle, Signals
from broker.lifecycle.complete import Result
from broker.lifecycle.fail import FailedResult
from broker.lifecycle.judge import Reported
from broker.lifecycle.tokens import LeaseRef
from broker.policy.decision import Failure
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.retention import RETENTION_SECONDS, Retention
from broker.store.grant import Lane, grant
from broker.store.retention import OldDay, copy_survivors, find_survivors, start_keeping, swap
from broker.store.session import Session
from broker.store.upkeep import ensure_partitions
from tests.contract.playbooks.catalog import IN_A_ROW, PATH
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock

DAY = 86_400
DAYS = 7
POLICY = to_json(RetryPolicy(max_attempts=3))


class Life:
    """Jobs of a broker that does nothing by itself, and days that pass."""

    def __init__(self, lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock) -> None:
        self.lifecycle = lifecycle
        self.session = session
        self.tables = tables
        self._move_clock = move_clock

    async def pass_days(self, days: float) -> None:
        """Days in which nobody does anything; partitions for the new one are there."""
        await self._move_clock(days * DAY)
        await ensure_partitions(self.session)

    async def enqueue(self, queue: str = "q", **fields: Any) -> int:
        """A new job of three attempts."""
        job = NewJob(queue, "task", "{}", policy=POLICY, max_attempts=3)._replace(**fields)
        ((job_id, _),) = await self.lifecycle.enqueue([job])
        return job_id

    async def lease(self, queue: str = "q") -> Grant:
        """The lease of the first job of a queue."""
        (granted,), _ = await grant(self.session, [Lane(queue, 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])
        return granted

    async def complete(self, lease: Grant) -> Outcome:
        """Ends a lease well."""
        in_execution = lease.execution_id is not None
        (outcome,) = await self.lifecycle.complete(
            [Result(LeaseRef(lease.lease_id, lease.job_id, in_execution), "1")]
        )
        return outcome

    async def fail(self, lease: Grant) -> None:
        """Ends a lease badly: the job is to be retried in a second."""
        failure = Reported(Failure("boom", "Boom", None, None, None, ""))
        await self.lifecycle.fail([FailedResult(LeaseRef(lease.lease_id, lease.job_id, False), failure)])

    async def done(self, queue: str = "q") -> int:
        """A job that has run and is done."""
        job_id = await self.enqueue(queue)
        await self.complete(await self.lease(queue))
        return job_id

    async def jobs(self) -> set[int]:
        """All jobs there are."""
        return {job_id for (job_id,) in await self.tables.rows("SELECT queue_id FROM noetl.queue")}


@pytest.fixture
async def life(database_url: str, move_clock: MoveClock) -> AsyncIterator[Life]:
    lifecycle = Lifecycle(database_url, Signals(), lambda: 0.5)
    session = Session(database_url)
    tables = Tables(database_url)
    # Today is the oldest day, so that it is the first to go.
    (yesterday,) = await tables.rows(
        "SELECT right(name, 8) FROM noetl.partitions('noetl.job') WHERE upper_bound <= noetl.id_at(noetl.clock())"
    )
    await tables.rows(f"DROP TABLE noetl.job_{yesterday[0]}, noetl.event_log_{yesterday[0]}")
    yield Life(lifecycle, session, tables, move_clock)
    await session.close()
    await lifecycle.close()


@pytest.fixture
async def retention(database_url: str) -> AsyncIterator[Retention]:
    keeper = Retention(database_url, DAYS)
    yield keeper
    await keeper.close()


@asynccontextmanager
async def reading(database_url: str) -> AsyncIterator[None]:
    """Somebody has read all jobs and events in a transaction that does not end."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT FROM noetl.job, noetl.event_log LIMIT 1")
        yield


async def tables_of_days(tables: Tables) -> list[str]:
    """Every table that holds jobs or events of days before the age, whether in use or not."""
    rows = await tables.rows(
        r"""SELECT relname FROM pg_class WHERE relnamespace = 'noetl'::regnamespace AND relkind = 'r'
        AND relname ~ '(job|event_log)_(kept_)?\d{8}$' AND right(relname, 8)::date < noetl.clock()::date - 7 ORDER BY 1"""
    )
    return [name for (name,) in rows]


async def test_what_ended_longer_ago_than_the_age_goes_with_its_events(
    life: Life, retention: Retention
) -> None:
    old = await life.done()
    await life.pass_days(DAYS + 2)
    young = await life.done()

    assert await retention() == RETENTION_SECONDS

    assert await life.jobs() == {young}
    assert await life.tables.story(old) == []
    assert await life.tables.story(young) == ["job_enqueued", "action_started", "action_completed"]


async def test_nothing_goes_before_its_age(life: Life, retention: Retention) -> None:
    job_id = await life.done()
    await life.pass_days(DAYS)

    await retention()

    assert await life.jobs() == {job_id}


async def test_a_lease_that_ended_longer_ago_than_the_age_is_lost(life: Life, retention: Retention) -> None:
    await life.enqueue()
    lease = await life.lease()
    assert await life.complete(lease) == Outcome.OK
    assert await life.complete(lease) == Outcome.OK
    await life.pass_days(DAYS + 2)

    await retention()

    assert await life.complete(lease) == Outcome.LOST


@pytest.mark.parametrize("standing", ["queued 0/3", "scheduled", "retry 1/3", "returned", "leased 1/3"])
async def test_a_job_that_lives_keeps_its_id_its_events_and_its_place(
    life: Life, retention: Retention, standing: str
) -> None:
    gone = await life.done("other")
    job_id = await life.enqueue(delay_seconds=20 * DAY if standing == "scheduled" else None)
    lease = None
    if standing in ("retry 1/3", "returned", "leased 1/3"):
        lease = await life.lease()
    if lease is not None and standing == "retry 1/3":
        await life.fail(lease)
    if lease is not None and standing == "returned":
        await life.lifecycle.release([LeaseRef(lease.lease_id, job_id, False)])
    before = await life.tables.job(job_id), await life.tables.events(job_id)
    await life.pass_days(DAYS + 2)

    await retention()
    await life.pass_days(1)
    await retention()

    assert (await life.tables.job(job_id), await life.tables.events(job_id)) == before
    assert await life.jobs() == {job_id}
    assert await life.tables.story(gone) == []
    if standing != "leased 1/3":
        # What waits for a time is made available without it.
        await life.tables.rows(
            """WITH due AS (DELETE FROM noetl.delayed RETURNING *) INSERT INTO noetl.ready
            SELECT noetl.next_id(), job_id, priority, attempts, 0, queue FROM due"""
        )
        lease = await life.lease()
    assert lease is not None
    assert lease.job_id == job_id
    assert await life.complete(lease) == Outcome.OK
    assert (await life.tables.story(job_id))[-1] == "action_completed"
    await life.pass_days(DAYS - 1)
    await retention()
    assert await life.jobs() == {job_id}, "it has ended too recently"
    await life.pass_days(2)
    await retention()
    assert await life.jobs() == set()


async def test_an_execution_goes_as_a_whole(life: Life, retention: Retention) -> None:
    executions = life.lifecycle.executions
    await executions.register(IN_A_ROW)
    ended = (await executions.start(PATH, 0, "{}", None)).execution_id
    running = (await executions.start(PATH, 0, "{}", None)).execution_id
    for _ in range(3):
        await life.complete(await life.lease("default"))
    history = await life.tables.rows("SELECT * FROM noetl.event WHERE execution_id = %s ORDER BY 1", running)
    await life.pass_days(DAYS + 2)

    await retention()

    for table in ("execution", "execution_step", "job", "event"):
        left = await life.tables.rows(f"SELECT DISTINCT execution_id FROM noetl.{table}")
        assert left == [(running,)], f"{ended} has left rows in {table}"
    assert history == await life.tables.rows(
        "SELECT * FROM noetl.event WHERE execution_id = %s ORDER BY 1", running
    )
    await life.complete(await life.lease("default"))
    assert await life.tables.rows("SELECT status FROM noetl.execution") == [("completed",)]


async def test_what_happens_while_partitions_are_replaced_is_neither_lost_nor_doubled(
    life: Life, retention: Retention, database_url: str
) -> None:
    completed, failed, redriven = [await life.enqueue(queue) for queue in ("a", "b", "c")]
    await life.complete(await life.lease("c"))
    leases = await life.lease("a"), await life.lease("b")
    await life.pass_days(DAYS + 2)

    async with reading(database_url):
        assert await retention() < RETENTION_SECONDS
        await life.complete(leases[0])
        await life.fail(leases[1])
        assert await retention() < RETENTION_SECONDS
        # A job that was to go, as it ended long ago, is put to work again.
        await life.tables.rows(
            """WITH x AS (SELECT noetl.next_id() AS id), e AS (INSERT INTO noetl.event_log (event_id, job_id, kind, attempt)
              SELECT id, %s, 8, 0 FROM x)
            INSERT INTO noetl.ready SELECT noetl.next_id(), %s, 0, 0, 0, 'c'""",
            redriven,
            redriven,
        )
        stories = {job_id: await life.tables.events(job_id) for job_id in (completed, failed, redriven)}
    assert await retention() == RETENTION_SECONDS

    assert {job_id: await life.tables.events(job_id) for job_id in stories} == stories
    assert await life.tables.standing(completed) == "done 1/3"
    assert await life.tables.standing(failed) == "retry 1/3"
    assert await life.complete(await life.lease("c")) == Outcome.OK
    assert await life.tables.value("SELECT count(*) FROM noetl.event_late") == 0


async def test_an_event_that_is_both_copied_and_recorded_is_not_doubled(life: Life) -> None:
    job_id = await life.enqueue()
    lease = await life.lease()
    await life.pass_days(DAYS + 2)
    (row,) = await life.tables.rows(
        "SELECT right(name, 8), upper_bound FROM noetl.partitions('noetl.job') WHERE %s BETWEEN lower_bound AND upper_bound",
        job_id,
    )
    old = OldDay._make(row)
    await start_keeping(life.session, old)
    await life.fail(lease)
    story = await life.tables.events(job_id)

    await find_survivors(life.session, old, DAYS)
    assert await copy_survivors(life.session, old, 0, 2**40) == job_id
    await swap(life.session, old)

    assert await life.tables.events(job_id) == story
    assert len(story) == 4


async def test_somebody_who_reads_on_delays_it_and_is_said_once(
    life: Life, retention: Retention, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await life.done()
    await life.pass_days(DAYS + 2)

    with caplog.at_level(logging.WARNING):
        async with reading(database_url):
            waits = [await retention() for _ in range(4)]
            young = await life.done()

    assert waits == [1, 2, 4, 8]
    assert len(caplog.records) == 1
    await retention()
    assert await life.jobs() == {young}


async def test_only_one_broker_is_at_it(life: Life, retention: Retention, database_url: str) -> None:
    await life.done()
    await life.pass_days(DAYS + 2)
    other = Retention(database_url, DAYS)

    async with reading(database_url):
        await retention()
        before = await tables_of_days(life.tables)
        assert await other() == RETENTION_SECONDS
        assert await tables_of_days(life.tables) == before
    await retention()

    assert await life.jobs() == set()


async def test_a_pass_that_broke_off_is_begun_anew(
    life: Life, retention: Retention, database_url: str
) -> None:
    job_id = await life.enqueue()
    lease = await life.lease()
    await life.done("other")
    await life.pass_days(DAYS + 2)
    async with reading(database_url):
        await retention()
        await retention.close()
        await life.fail(lease)
    story = await life.tables.events(job_id)
    # Another broke off after its swap.
    await life.tables.rows("CREATE TABLE noetl.gone_job_20200101 (job_id bigint)")

    await Retention(database_url, DAYS)()

    assert await life.jobs() == {job_id}
    assert await life.tables.events(job_id) == story
    assert [name[:-8] for name in await tables_of_days(life.tables)] == ["event_log_kept_", "job_kept_"]


async def test_partitions_do_not_add_up(life: Life, retention: Retention) -> None:
    kept = [await life.enqueue()]
    for _ in range(3):
        await life.pass_days(DAYS + 2)
        while await retention() < RETENTION_SECONDS:
            pass  # a table was in use for a moment, by autovacuum for instance: it says when to try again
        kept.append(await life.enqueue())

    assert await life.jobs() == set(kept)
    assert [name[:-8] for name in await tables_of_days(life.tables)] == ["event_log_kept_", "job_kept_"]


async def test_a_queue_without_jobs_is_forgotten(life: Life, retention: Retention) -> None:
    await life.done("gone")
    await life.enqueue("waits")
    await life.pass_days(DAYS + 4)
    await life.done("new")

    await retention()

    assert await life.tables.rows("SELECT name FROM noetl.queue_name ORDER BY 1") == [("new",), ("waits",)]


async def test_no_key_stands_for_a_job_that_is_gone(life: Life, retention: Retention) -> None:
    old = await life.enqueue(idempotency_key="k")
    await life.complete(await life.lease())
    await life.pass_days(DAYS + 2)

    await retention()

    assert await life.enqueue(idempotency_key="k") != old
