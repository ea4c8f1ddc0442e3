"""Brokers of one database tell each other what they have seen: here they look for themselves so seldom that only a hint can explain it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import psycopg
import pytest
from reprise.v1 import broker_service_pb2 as broker_pb

from broker.config import BrokerConfig
from broker.dispatcher import dispatcher, lookout
from broker.hints import Hint, Speaker, from_text, to_text
from broker.job import Arrival, NewJob
from broker.lifecycle import Lifecycle, Signals
from broker.server import running
from broker.store.hints import name_of
from tests.contract.client import PATIENCE_SECONDS, Client, new_job, retry
from tests.contract.playbooks.catalog import ONE_STEP, PlaybookClient
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_broker import MoveTimers
from tests.fixtures_database import MoveClock

NEVER_SECONDS = 3600.0
COMMITS = 300
QUEUES = 10
_LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN reprise_hint'"


@pytest.fixture
def never_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that hear others do not look by themselves."""
    monkeypatch.setattr("broker.dispatcher.lookout.POLL_SECONDS", NEVER_SECONDS)


@pytest.fixture
async def channels(
    database_url: str, tables: Tables, never_look: None
) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Channels to two brokers that hear each other."""
    async with AsyncExitStack() as stack:
        channels = []
        for _ in range(2):
            config = BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)
            address = await stack.enter_async_context(running(config))
            channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(address)))
        await eventually(lambda: _listening(tables, 2))
        yield channels


@pytest.fixture
def clients(channels: list[grpc.aio.Channel]) -> list[Client]:
    """One client of each broker."""
    return [Client(channel) for channel in channels]


async def test_a_job_starts_at_the_broker_that_has_a_stream_for_it(clients: list[Client]) -> None:
    here, there = clients
    async with there.stream(3) as stream:
        await there.enqueue()
        await stream.leases(1)

        for priority in (0, 7):
            job_id = await here.enqueue(priority=priority)

            assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_jobs_in_more_queues_than_a_hint_can_name_start_all_the_same(clients: list[Client]) -> None:
    here, there = clients
    queues = [f"{number:0>120}" for number in range(64)]
    async with there.stream(65, queues=queues) as stream:
        await there.enqueue(queue=queues[0])
        await stream.leases(1)

        jobs = await here.enqueue_all(*(new_job(queue=queue) for queue in queues))

        assert {lease.job_id for lease in await stream.leases(64)} == {job.job_id for job in jobs}


async def test_what_the_streams_of_a_broker_leave_over_goes_to_another(clients: list[Client]) -> None:
    here, there = clients
    async with here.stream(2, queues=["default", "small"]) as small, there.stream(10) as large:
        await here.enqueue(queue="small")
        await small.leases(1)
        await there.enqueue()
        await large.leases(1)

        await here.enqueue_all(*(new_job() for _ in range(5)))

        assert len(await large.leases(4)) + len(await small.leases(1)) == 5


@pytest.mark.parametrize("scheduler", [0, 1])
async def test_a_retry_starts_in_time_whichever_broker_decided_it(
    clients: list[Client], move_clock: MoveClock, scheduler: int
) -> None:
    there = clients[1]
    async with there.stream(2) as stream:
        await there.enqueue(retry=retry(initial_delay=60))
        (lease,) = await stream.leases(1)
        await clients[scheduler].fail(lease.lease_token)

        await move_clock(60)

        assert [again.attempt for again in await stream.leases(1)] == [2]


async def test_a_worker_hears_that_its_execution_was_cancelled_at_another_broker(
    channels: list[grpc.aio.Channel],
) -> None:
    here, there = PlaybookClient(channels[0]), Client(channels[1])
    await here.register(ONE_STEP)
    async with there.stream(1) as stream:
        started = await here.start()
        (lease,) = await stream.leases(1)

        await here.cancel(started.execution_id)

        notice = await stream.notice()
    assert (notice.lease_token, notice.kind) == (lease.lease_token, broker_pb.LeaseNotice.KIND_CANCELLED)


async def test_a_broker_that_is_alone_says_nothing(database_url: str, tables: Tables) -> None:
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener,
    ):
        await eventually(lambda: _listening(tables, 1))
        await listener.execute("LISTEN reprise_hint")
        client = Client(channel)
        for _ in range(20):
            await client.enqueue()
        await client.poll(20)

        await listener.execute("NOTIFY reprise_hint, 'the end'")

        said = [notice.payload async for notice in listener.notifies(stop_after=1)]
    assert [text for text in said if '"arrivals":[[' in text or text == "the end"] == ["the end"]


async def test_many_commits_of_one_interval_are_told_in_one_hint(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, move_timers: MoveTimers
) -> None:
    monkeypatch.setattr("broker.hints.INTERVAL_SECONDS", NEVER_SECONDS)
    another = await psycopg.AsyncConnection.connect(
        database_url, autocommit=True, application_name=name_of("another")
    )
    async with another:  # a second broker, as far as the first can tell
        await another.execute("LISTEN reprise_hint")
        async with (
            running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await _said(another)  # its greeting, with which an interval begins
            for number in range(COMMITS):
                await Client(channel).enqueue(queue=f"queue-{number % QUEUES}")
            assert await tables.value("SELECT count(DISTINCT xmin::text) FROM noetl.job") == COMMITS

            move_timers(NEVER_SECONDS)

            said = await _said(another)
            await another.execute("NOTIFY reprise_hint, 'the end'")
            said += await _said(another)

    assert said[1:] == ["the end"]
    hint = from_text(said[0])
    assert hint is not None
    assert {arrival.queue for arrival in hint.arrivals} == {f"queue-{number}" for number in range(QUEUES)}


async def test_a_broker_that_was_heard_during_the_look_whether_there_is_any_is_told(
    database_url: str,
) -> None:
    speaker = Speaker(database_url, wanted=set, promises=lambda _: False)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener:
        await listener.execute("LISTEN reprise_hint")
        speaker.arrived([Arrival("q", 0, 7, None)])
        speaking = asyncio.create_task(speaker.run())
        await asyncio.sleep(0)

        speaker.hear(to_text(Hint("another")))

        said = [notice.payload async for notice in listener.notifies(timeout=PATIENCE_SECONDS, stop_after=1)]
    speaking.cancel()
    await speaker.close()
    assert [from_text(text) for text in said] == [Hint(speaker.broker_id, (Arrival("q", 0, 7, None),))]


async def test_a_broker_that_was_told_nothing_finds_jobs_by_looking(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.dispatcher.lookout.POLL_SECONDS", 0.05)
    silent = Lifecycle(database_url, Signals(), lambda: 0.5)
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
        Client(channel).stream(2) as stream,
    ):
        await Client(channel).enqueue()
        await stream.leases(1)

        (job,) = await silent.enqueue([NewJob("default", "task", "{}")])

        assert [lease.job_id for lease in await stream.leases(1)] == [job.job_id]
    await silent.close()


async def test_looking_at_a_queue_that_has_nothing_takes_no_lease_statement(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "POLL_SECONDS", 0.02)
    statements: list[str] = []
    for module, name in ((lookout, "discover"), (dispatcher, "grant")):
        monkeypatch.setattr(module, name, _recording(statements, getattr(module, name)))
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
        Client(channel).stream() as stream,
    ):
        await Client(channel).enqueue()
        await stream.ask(2)
        await stream.leases(1)
        statements.clear()

        await eventually(lambda: _is_true(len(statements) >= 5))

    assert set(statements) == {"discover"}


async def _said(listener: psycopg.AsyncConnection) -> list[str]:
    """What has been said since the last time, waited for."""
    said = [notice.payload async for notice in listener.notifies(timeout=PATIENCE_SECONDS, stop_after=1)]
    assert said, "nothing was said"
    return said


def _recording(names: list[str], run: Any) -> Any:
    async def recorded(*arguments: Any) -> Any:
        names.append(run.__name__)
        return await run(*arguments)

    return recorded


async def _is_true(value: bool) -> bool:
    return value


async def _listening(tables: Tables, count: int) -> bool:
    return bool(await tables.value(_LISTENING) == count)
