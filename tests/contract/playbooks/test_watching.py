"""What WatchExecution promises: all events from the first one on, as they come, and the execution at its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from reprise.v1 import playbook_service_pb2 as pb

from broker.config import BrokerConfig
from broker.server import running
from tests.contract.client import PATIENCE_SECONDS, Client, Refusal
from tests.contract.playbooks.catalog import ONE_STEP, RETRIED, PlaybookClient
from tests.contract.playbooks.run import Run, Starter
from tests.contract.tables import Tables


class Watch:
    """An open watch."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> pb.WatchExecutionResponse | None:
        """The next update, waited for; None when the watch has ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            update = await self._call.read()
        return update if isinstance(update, pb.WatchExecutionResponse) else None

    async def until(self, event_type: str) -> list[str]:
        """The types of the events that come, until one is of this type."""
        told: list[str] = []
        while event_type not in told[-1:]:
            update = await self.next()
            assert update is not None
            told.append(update.event.event_type)
        return told

    async def rest(self) -> list[pb.WatchExecutionResponse]:
        """All updates until the watch ends."""
        updates: list[pb.WatchExecutionResponse] = []
        while (update := await self.next()) is not None:
            updates.append(update)
        return updates


@asynccontextmanager
async def watched(playbooks: PlaybookClient, execution_id: int) -> AsyncIterator[Watch]:
    """A watch that is broken at the end of the block unless it has ended."""
    call = playbooks.watch(execution_id)
    try:
        yield Watch(call)
    finally:
        call.cancel()


async def history(run: Run) -> list[int]:
    """The ids of all events that the execution has."""
    rows = await run.tables.rows(
        "SELECT event_id FROM noetl.event WHERE execution_id = %s ORDER BY event_id", run.execution_id
    )
    return [event_id for (event_id,) in rows]


async def test_watch_begins_with_the_first_event_and_shows_each_as_it_comes(start: Starter) -> None:
    run = await start(ONE_STEP)
    async with watched(run.playbooks, run.execution_id) as watch:
        assert await watch.until("job_enqueued") == ["execution_started", "step_started", "job_enqueued"]
        lease = await run.lease("task")
        assert await watch.until("action_started") == ["action_started"]
        await run.client.complete(lease.lease_token, result_json="[1]")

        rest = await watch.rest()

    assert [update.event.event_type for update in rest[:-1]] == [
        "action_completed",
        "step_completed",
        "execution_completed",
    ]
    assert rest[-1].execution == await run.look(full=True)


async def test_watch_of_an_execution_that_has_ended_shows_its_whole_history_in_one_look(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start(ONE_STEP)
    await run.fail("task")
    monkeypatch.setattr("broker.service.playbook_service._WATCH_SECONDS", 3600)

    async with watched(run.playbooks, run.execution_id) as watch:
        updates = await watch.rest()

    assert [update.event.event_id for update in updates[:-1]] == await history(run)
    assert updates[-1].execution == await run.look(full=True)


async def test_event_says_everything_that_is_known_of_it(start: Starter) -> None:
    run = await start(RETRIED)
    lease = await run.lease("task")
    async with watched(run.playbooks, run.execution_id) as watch:
        await watch.until("job_enqueued")
        update = await watch.next()

    assert update is not None
    event = update.event
    assert (event.execution_id, event.job_id) == (run.execution_id, lease.job_id)
    assert (event.event_type, event.step, event.attempt) == ("action_started", "task", 1)
    assert event.worker_id == "worker-1"
    assert '"max_attempts"' in event.result_json
    assert event.HasField("created_at")


async def test_two_watches_see_the_same_also_at_another_broker(
    start: Starter, second_channel: grpc.aio.Channel
) -> None:
    run = await start(ONE_STEP)
    async with (
        watched(run.playbooks, run.execution_id) as here,
        watched(PlaybookClient(second_channel), run.execution_id) as elsewhere,
    ):
        await here.until("execution_started")
        await run.complete("task")
        both = [await here.rest(), await elsewhere.rest()]

    ids = [[update.event.event_id for update in updates[:-1]] for updates in both]
    assert ids == [(await history(run))[1:], await history(run)]
    assert both[0][-1] == both[1][-1]


async def test_long_history_is_shown_once_and_in_order(start: Starter, tables: Tables) -> None:
    run = await start(ONE_STEP)
    await tables.rows(
        """INSERT INTO noetl.event_log (event_id, job_id, execution_id, kind, attempt)
        SELECT noetl.next_id(), 0, execution_id, 11, 0 FROM noetl.execution, generate_series(1, 1000)"""
    )
    await run.playbooks.cancel(run.execution_id)

    async with watched(run.playbooks, run.execution_id) as watch:
        updates = await watch.rest()

    assert [update.event.event_id for update in updates[:-1]] == await history(run)


async def test_event_that_commits_after_a_later_one_is_shown_too(start: Starter, tables: Tables) -> None:
    run = await start(ONE_STEP)
    async with watched(run.playbooks, run.execution_id) as watch:
        await watch.until("job_enqueued")
        late = await tables.value("SELECT noetl.next_id()")
        await run.lease("task")
        await watch.until("action_started")
        await tables.rows(
            "INSERT INTO noetl.event_log (event_id, job_id, execution_id, kind, attempt) VALUES (%s, 0, %s, 11, 0)",
            late,
            run.execution_id,
        )

        update = await watch.next()

    assert update is not None
    assert update.event.event_id == late


@pytest.mark.parametrize("execution_id", [42, 0, -1])
async def test_watch_of_what_is_not_there_is_not_found(playbooks: PlaybookClient, execution_id: int) -> None:
    async with watched(playbooks, execution_id) as watch:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch.next()

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "EXECUTION_NOT_FOUND")


async def test_watch_ends_with_what_can_be_shown_where_the_result_cannot(start: Starter) -> None:
    run = await start(ONE_STEP)
    await run.complete("task", "[" * 60 + "]" * 60)

    async with watched(run.playbooks, run.execution_id) as watch:
        updates = await watch.rest()

    assert updates[-1].execution == await run.look()


async def test_broker_that_shuts_down_asks_to_watch_again(database_url: str, tables: Tables) -> None:
    async with AsyncExitStack() as broker:
        address = await broker.enter_async_context(
            running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=20))
        )
        async with grpc.aio.insecure_channel(address) as channel:
            playbooks = PlaybookClient(channel)
            run = await Starter(playbooks, Client(channel), tables)(ONE_STEP)
            async with watched(playbooks, run.execution_id) as watch:
                await watch.until("job_enqueued")
                await broker.aclose()
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await watch.next()

    refusal = Refusal(ended.value)
    assert refusal.code == "UNAVAILABLE"
    assert refusal.retry_after is not None
