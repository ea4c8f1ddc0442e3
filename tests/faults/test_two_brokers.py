"""Brokers on one database are one broker to their clients: whatever is done at one is known at the other, and nothing is done twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import psycopg
import pytest

from broker.config import BrokerConfig
from broker.lifecycle import fail
from broker.server import running
from broker.store.finish import Facts, facts
from broker.store.session import Session
from tests.contract.client import LOST, OK, RETRY, Client, Stream, new_job, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

JOBS = 4000
STREAMS = 3
BACKLOG = 1000
LONG_SECONDS = 100.0  # more than a broker looks back but by a full rewind


@pytest.fixture
async def clients(database_url: str) -> AsyncIterator[list[Client]]:
    """One client of each of two brokers on one database."""
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(
                running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2))
            )
            for _ in range(2)
        ]
        yield [
            Client(await stack.enter_async_context(grpc.aio.insecure_channel(address)))
            for address in addresses
        ]


async def test_a_job_put_in_at_one_broker_is_leased_at_the_other(clients: list[Client]) -> None:
    here, there = clients
    async with there.stream(1) as stream:
        job_id = await here.enqueue()

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_a_poll_at_one_broker_sees_what_was_put_in_at_the_other_before_it(
    clients: list[Client],
) -> None:
    here, there = clients
    for priority in (0, 7, 0, -3, 7):
        job_id = await here.enqueue(priority=priority)

        assert [lease.job_id for lease in await there.poll(10)] == [job_id]


async def test_a_lease_of_one_broker_is_good_at_the_other(
    clients: list[Client], move_clock: MoveClock
) -> None:
    here, there = clients
    await here.enqueue(retry=retry())
    token = (await here.lease()).lease_token

    assert (await there.extend(token)).outcome == OK
    failed = await there.fail(token)
    assert failed.outcome == OK
    assert await here.fail(token) == failed
    await move_clock(1)
    again = await there.lease()
    assert again.attempt == 2
    assert await here.complete(again.lease_token) == OK
    assert await there.complete(again.lease_token) == OK
    assert await there.complete(token) == LOST


@pytest.mark.parametrize("at", ["here", "there"])
@pytest.mark.parametrize("leased", ["in its turn", "at once", "when due"])
async def test_a_failure_is_decided_alike_by_the_broker_that_granted_the_lease_and_by_another(
    clients: list[Client], tables: Tables, move_clock: MoveClock, at: str, leased: str
) -> None:
    here, there = clients
    is_late = leased != "at once"
    asks = f"{{{{ [attempt, max_attempts, queue, kind, elapsed > 50] == [1, 3, 'q', 'task', {is_late}] }}}}"
    job = {"queue": "q", "retry": retry(retry_when=asks)}
    if leased == "in its turn":
        job_id = await here.enqueue(**job)
        await move_clock(100)
    async with here.stream(1, queues=["q"]) as stream:
        if leased != "in its turn":
            job_id = await here.enqueue(**job, delay=100 if leased == "when due" else 0)
            await move_clock(100 if leased == "when due" else 0)
        (lease,) = await stream.leases(1)

        failed = await (here if at == "here" else there).fail(lease.lease_token, type="E", trace=True)

    assert failed.decision.verdict == RETRY
    assert failed.decision.attempt == 1
    assert failed.decision.max_attempts == 3
    (error,) = await tables.events(job_id, "action_error")
    assert round(error.result["elapsed"], -2) == (100 if is_late else 0)
    assert error.result["policy"]["retry_when"] == asks


async def test_only_a_broker_that_did_not_grant_a_lease_reads_it_before_it_decides(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = clients
    read: list[int] = []

    async def reading(session: Session, lease_ids: Sequence[int]) -> dict[int, Facts]:
        read.extend(lease_ids)
        return await facts(session, lease_ids)

    monkeypatch.setattr(fail, "facts", reading)
    counts = []
    for client in (here, there):
        await here.enqueue(retry=retry())
        async with here.stream(1) as stream:
            (lease,) = await stream.leases(1)
            assert (await client.fail(lease.lease_token)).outcome == OK
        counts.append(len(read))

    assert counts == [0, 1]


async def test_a_lease_prolonged_at_one_broker_survives_the_break_of_its_stream_at_the_other(
    clients: list[Client], tables: Tables
) -> None:
    here, there = clients
    await here.enqueue_all(new_job(), new_job())
    async with here.stream(2) as stream:
        kept, _ = await stream.leases(2)
        await there.extend(kept.lease_token)

    await eventually(lambda: _count(tables, "noetl.ready", 1))
    assert await there.complete(kept.lease_token) == OK


@pytest.mark.parametrize("priorities", [1, 2])
async def test_no_job_is_leased_twice_and_none_is_left_when_both_are_busy(
    clients: list[Client], tables: Tables, move_clock: MoveClock, priorities: int
) -> None:
    for _ in range(JOBS // 1000):
        await clients[0].enqueue_all(*(new_job(priority=number % priorities) for number in range(1000)))
    await move_clock(LONG_SECONDS)

    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(client.stream(JOBS)) for client in clients for _ in range(STREAMS)
        ]
        taken: Counter[int] = Counter()

        async def drain(stream: Stream) -> None:
            while taken.total() < JOBS:
                taken.update(lease.job_id for lease in (await stream.next()).leases)

        draining = [asyncio.ensure_future(drain(stream)) for stream in streams]
        await eventually(lambda: _all_taken(taken))
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)

    assert set(taken.values()) == {1}
    started = await tables.rows(
        "SELECT job_id, count(*) FROM noetl.event WHERE event_type = 'action_started' GROUP BY 1 HAVING count(*) > 1"
    )
    assert started == []


@pytest.mark.parametrize("priorities", [1, 2])
@pytest.mark.parametrize("taken", [BACKLOG // 2 - 200, BACKLOG // 2, BACKLOG - 100])
async def test_what_another_broker_is_about_to_take_holds_up_nothing_behind_it(
    clients: list[Client], tables: Tables, move_clock: MoveClock, priorities: int, taken: int
) -> None:
    client, _ = clients
    jobs = [new_job(priority=number % priorities) for number in range(BACKLOG)]
    await client.enqueue_all(*jobs)
    await move_clock(LONG_SECONDS)

    async with _taking(tables, taken), client.stream(BACKLOG) as stream:
        leases = await stream.leases(BACKLOG - taken)

    assert len({lease.job_id for lease in leases}) == BACKLOG - taken


async def test_an_expired_lease_is_decided_once(
    clients: list[Client], tables: Tables, move_clock: MoveClock
) -> None:
    jobs = await clients[0].enqueue_all(
        *(new_job(retry=retry(initial_delay=600, max_delay=600)) for _ in range(50))
    )
    await clients[1].poll(50, lease_seconds=30)

    await move_clock(31)

    await eventually(lambda: _count(tables, "noetl.delayed", 50))
    for job in jobs[:10]:
        assert await tables.story(job.job_id) == [
            "job_enqueued",
            "action_started",
            "action_error",
            "action_retry",
        ]
    assert await tables.value("SELECT count(*) FROM noetl.event WHERE event_type = 'action_error'") == 50


@asynccontextmanager
async def _taking(tables: Tables, count: int) -> AsyncIterator[psycopg.AsyncConnection]:
    """Inside the block the first jobs that wait are taken, but not yet committed, as by a statement of another broker."""
    async with await psycopg.AsyncConnection.connect(tables.database_url) as connection:
        await connection.execute(
            """DELETE FROM noetl.ready WHERE job_id = ANY(ARRAY(
              SELECT job_id FROM noetl.ready ORDER BY priority DESC, seq LIMIT %s))""",
            (count,),
        )
        yield connection


async def _count(tables: Tables, table: str, count: int) -> bool:
    return bool(await tables.value(f"SELECT count(*) FROM {table}") == count)


async def _all_taken(taken: Counter[int]) -> bool:
    return taken.total() >= JOBS
