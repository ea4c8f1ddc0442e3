"""An execution that cannot be advanced comes to an end, does no harm to others, and holds nothing for ever."""

import asyncio
from typing import Any

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as pb

from tests.contract.client import OK, PATIENCE_SECONDS, Client, Refusal
from tests.contract.playbooks.catalog import IN_A_ROW, ONE_STEP, PATH, PlaybookClient, playbook, python_step
from tests.contract.playbooks.locking import locked, wait_until_locked_out
from tests.contract.playbooks.run import Run, Starter
from tests.contract.tables import Tables

FORK = playbook("- {step: start, next: [left, right]}\n" + python_step("left") + python_step("right"))


async def replace_playbook(tables: Tables, text: str, path: str = PATH) -> None:
    """As if a broker of another version had registered it: brokers that have read it already do not notice."""
    await tables.rows("UPDATE noetl.playbook SET body = %s WHERE path = %s", text, path)


async def ending(run: Run) -> tuple[str, str, str, str]:
    """Status, failed step, type and message of the failure."""
    look = await run.look()
    return await run.status(), look.failed_step, look.failure.type, look.failure.message


async def test_execution_whose_playbook_cannot_be_read_any_more_fails_and_says_why(
    start: Starter, second_channel: grpc.aio.Channel, tables: Tables
) -> None:
    run = await start(IN_A_ROW)
    lease = await run.lease("first")
    await replace_playbook(tables, IN_A_ROW.replace("python", "pyhton"))

    assert await Client(second_channel).complete(lease.lease_token) == OK

    status, failed_step, failure_type, message = await ending(run)
    assert (status, failed_step, failure_type) == ("FAILED", "first", "internal_error")
    assert message.startswith(f"playbook '{PATH}' version 1: cannot be read any more: line 3, column ")
    assert (await run.story())[-2:] == ["step_completed first", "execution_failed"]


async def test_execution_that_nobody_foresaw_fails_and_the_others_of_its_turn_go_on(
    start: Starter, second_channel: grpc.aio.Channel, tables: Tables
) -> None:
    bad = await start(ONE_STEP)
    bad_lease = await bad.lease("task")
    good = await start(IN_A_ROW.replace(PATH, "tests/good"))
    good_lease = await good.lease("first")
    await replace_playbook(tables, ONE_STEP.replace("task", "renamed"))

    answer: pb.CompleteResponse = await Client(second_channel).stub.Complete(
        pb.CompleteRequest(
            completions=[pb.Completion(lease_token=lease.lease_token) for lease in (bad_lease, good_lease)]
        )
    )

    assert [result.outcome for result in answer.results] == [OK, OK]
    assert await ending(bad) == ("FAILED", "task", "internal_error", "internal error: KeyError: 'task'")
    assert await good.steps() == ["first done 1/1", "second queued 0/1"]


async def test_execution_that_cannot_be_advanced_fails_only_when_its_last_step_has_ended(
    start: Starter, second_channel: grpc.aio.Channel, tables: Tables
) -> None:
    run = await start(FORK)
    leases = await run.lease_all("left", "right")
    elsewhere = Client(second_channel)
    await replace_playbook(tables, "no playbook")

    await elsewhere.complete(leases["left"].lease_token)
    assert await run.status() == "RUNNING"
    await elsewhere.complete(leases["right"].lease_token)

    assert (await ending(run))[:3] == ("FAILED", "right", "internal_error")


async def test_start_of_a_playbook_that_cannot_be_read_any_more_is_refused(
    playbooks: PlaybookClient, tables: Tables
) -> None:
    await playbooks.register(ONE_STEP)
    await replace_playbook(tables, "no playbook")

    with pytest.raises(grpc.aio.AioRpcError) as error:
        await playbooks.start()

    refusal = Refusal(error.value)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PLAYBOOK_UNREADABLE")


async def test_execution_that_takes_too_long_to_be_worked_out_fails(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.lifecycle.advance._ADVANCE_SECONDS", 0)

    run = await start(ONE_STEP)

    status, _, failure_type, message = await ending(run)
    assert (status, failure_type) == ("FAILED", "internal_error")
    assert message == "internal error: what follows could not be worked out within 0 s"


async def test_turn_that_takes_too_long_lets_go_and_can_be_repeated(
    start: Starter, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await start(IN_A_ROW)
    lease = await run.lease("first")
    monkeypatch.setattr("broker.lifecycle.turns._TURN_SECONDS", 0.05)

    async with locked(tables, "execution_step"):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await run.client.complete(lease.lease_token)
        await tables.rows("SELECT FROM noetl.execution FOR UPDATE NOWAIT")
    monkeypatch.undo()

    refusal = Refusal(error.value)
    assert (refusal.code, refusal.retry_after is not None) == ("RESOURCE_EXHAUSTED", True)
    assert await run.client.complete(lease.lease_token) == OK
    assert await run.steps() == ["first done 1/1", "second queued 0/1"]


async def test_call_that_finds_too_many_others_waiting_is_asked_to_come_later(
    playbooks: PlaybookClient, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    await playbooks.register(ONE_STEP)
    monkeypatch.setattr("broker.lifecycle.turns._MAX_WAITING", 2)

    async with locked(tables, "execution"):
        first = asyncio.ensure_future(playbooks.start())
        await wait_until_locked_out(tables)
        others: set[asyncio.Future[Any]] = {asyncio.ensure_future(playbooks.start()) for _ in range(5)}
        refused: set[asyncio.Future[Any]] = set()
        while len(refused) < 3:
            done, others = await asyncio.wait(
                others, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            refused |= done

    for call in refused:
        error = call.exception()
        assert isinstance(error, grpc.RpcError)
        refusal = Refusal(error)
        assert (refusal.code, refusal.retry_after is not None) == ("RESOURCE_EXHAUSTED", True)
    await asyncio.gather(first, *others)
    assert len(await playbooks.list_all()) == 3
