"""What GetExecution and ListExecutions promise."""

import json

import grpc
import pytest
from reprise.v1 import playbook_service_pb2 as pb

from tests.contract.client import Refusal
from tests.contract.playbooks.catalog import IN_A_ROW, ONE_STEP, PATH, RETRIED, PlaybookClient
from tests.contract.playbooks.run import Starter
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock

FAILED = pb.EXECUTION_STATUS_FAILED
RUNNING = pb.EXECUTION_STATUS_RUNNING
CANCELLED = pb.EXECUTION_STATUS_CANCELLED


async def test_basic_view_leaves_out_workload_and_result_and_full_has_them(start: Starter) -> None:
    run = await start(ONE_STEP, tenant="acme")
    await run.complete("task", '{"sum": 3}')

    basic, full = await run.look(), await run.look(full=True)

    assert not basic.HasField("workload")
    assert not basic.HasField("result")
    assert (dict(full.workload), dict(full.result.struct_value)) == ({"tenant": "acme"}, {"sum": 3})
    full.ClearField("workload")
    full.ClearField("result")
    assert full == basic


async def test_execution_shows_when_it_started_and_ended(start: Starter, move_clock: MoveClock) -> None:
    run = await start(ONE_STEP)
    assert not (await run.look()).HasField("finished_at")
    await move_clock(100)
    await run.complete("task")

    execution = await run.look()

    lasted = execution.finished_at.ToDatetime() - execution.started_at.ToDatetime()
    assert 100 <= lasted.total_seconds() < 200
    assert (execution.path, execution.version) == (PATH, 1)


async def test_steps_are_shown_in_the_order_they_started_with_their_standing(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(IN_A_ROW.replace("workflow:", "workflow:\n  - {step: start, next: [first]}"))
    assert await run.steps() == ["start", "first queued 0/1"]
    lease = await run.lease("first")
    assert await run.steps() == ["start", "first leased 1/1"]
    await run.client.complete(lease.lease_token)
    assert await run.steps() == ["start", "first done 1/1", "second queued 0/1"]
    await run.complete("second")
    assert await run.steps() == ["start", "first done 1/1", "second done 1/1", "end"]


async def test_step_that_waits_for_its_retry_shows_until_when(start: Starter) -> None:
    run = await start(RETRIED)

    decision = await run.fail("task")

    (step,) = (await run.look()).steps
    assert await run.steps() == ["task retry 1/3"]
    assert step.available_at == decision.available_at


async def test_failed_execution_shows_the_failure_of_its_step(start: Starter) -> None:
    run = await start(ONE_STEP)

    await run.fail("task", "no such table", type="postgres.42P01", status_code=7)

    execution = await run.look()
    assert (execution.status, execution.failed_step) == (FAILED, "task")
    failure = execution.failure
    assert (failure.message, failure.type, failure.status_code) == ("no such table", "postgres.42P01", 7)


@pytest.mark.parametrize("execution_id", [0, -1, 42, 2**63 - 1, -(2**63)])
async def test_execution_that_is_not_there_is_not_found(playbooks: PlaybookClient, execution_id: int) -> None:
    for call in (playbooks.execution(execution_id), playbooks.cancel(execution_id)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call

        refusal = Refusal(refused.value)
        assert (refusal.code, refusal.reason) == ("NOT_FOUND", "EXECUTION_NOT_FOUND")


async def test_values_too_large_for_one_message_are_refused_and_the_rest_can_still_be_seen(
    start: Starter,
) -> None:
    run = await start(
        ONE_STEP.replace("workflow:", f"workload: {{big: {'x' * 900_000}}}\nworkflow:"), more="y" * 1_000_000
    )
    await run.complete("task", f'["{"z" * 980_000}"{",1" * 30_000}]')

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run.look(full=True)
    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "TOO_LARGE")
    assert await run.status() == "COMPLETED"


@pytest.mark.parametrize("nested", ["[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60])
async def test_result_nested_deeper_than_protobuf_reads_is_refused_and_the_rest_can_still_be_seen(
    start: Starter, nested: str
) -> None:
    run = await start(ONE_STEP)
    await run.complete("task", nested)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run.look(full=True)
    assert Refusal(refused.value).code == "FAILED_PRECONDITION"
    assert await run.status() == "COMPLETED"


@pytest.mark.parametrize("nested", ["[" * 48 + "]" * 48, '{"a":' * 32 + "1" + "}" * 32])
async def test_result_nested_as_deep_as_protobuf_reads_is_shown(start: Starter, nested: str) -> None:
    run = await start(ONE_STEP)
    await run.complete("task", nested)

    assert await run.result() == json.loads(nested)


@pytest.mark.parametrize("page_size", [1, 2, 0])
async def test_executions_are_listed_newest_first_page_by_page_and_filtered(
    start: Starter, playbooks: PlaybookClient, page_size: int
) -> None:
    failed = await start(ONE_STEP, n=1)
    await failed.fail("task")
    cancelled = await start.again()
    await playbooks.cancel(cancelled.execution_id)
    other = await start(ONE_STEP.replace(PATH, "tests/other"))
    here = await start.again(PATH)

    async def listed(**filters: object) -> list[int]:
        found = await playbooks.list_all(page_size=page_size, **filters)
        return [execution.execution_id for execution in found]

    ids = [run.execution_id for run in (here, other, cancelled, failed)]
    assert await listed() == ids
    assert await listed(path=PATH) == [ids[0], ids[2], ids[3]]
    assert await listed(statuses=[RUNNING]) == ids[:2]
    assert await listed(statuses=[FAILED, CANCELLED], path=PATH) == ids[2:]
    assert await listed(path="nowhere") == []
    shown = (await playbooks.list_all())[-1]
    assert (shown.status, shown.failed_step, shown.failure.message) == (FAILED, "task", "boom")
    assert not shown.steps
    assert not shown.HasField("workload")


async def test_page_of_executions_stays_below_the_message_limit(
    start: Starter, playbooks: PlaybookClient, tables: Tables
) -> None:
    run = await start(ONE_STEP)
    await run.fail("task", "x" * 8192)
    await tables.rows(
        """INSERT INTO noetl.execution (execution_id, path, version, status, workload, given, finished_at, failed_step, failure)
        SELECT noetl.next_id(), path, version, status, workload, given, finished_at, failed_step, failure
        FROM noetl.execution, generate_series(1, 399)"""
    )

    page = await playbooks.stub.ListExecutions(pb.ListExecutionsRequest(page_size=400))

    assert page.ByteSize() <= 3 * 1024 * 1024
    assert len(await playbooks.list_all(page_size=400)) == 400


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        (pb.ListExecutionsRequest(page_size=-1), ["page_size"]),
        (pb.ListExecutionsRequest(page_token="made up"), ["page_token"]),
        (pb.ListExecutionsRequest(path="a\0b"), ["path"]),
        (pb.ListExecutionsRequest(statuses=[RUNNING, pb.EXECUTION_STATUS_UNSPECIFIED]), ["statuses[1]"]),
        (
            pb.ListExecutionsRequest(path="\0", statuses=[99], page_size=-1, page_token="?"),  # type: ignore[list-item]
            ["path", "statuses[0]", "page_size", "page_token"],
        ),
    ],
)
async def test_list_that_cannot_be_is_refused_with_every_bad_field(
    playbooks: PlaybookClient, wrong: pb.ListExecutionsRequest, fields: list[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.stub.ListExecutions(wrong)

    assert (Refusal(refused.value).code, Refusal(refused.value).fields) == ("INVALID_ARGUMENT", fields)


async def test_token_of_another_filter_is_refused(start: Starter, playbooks: PlaybookClient) -> None:
    await start(ONE_STEP)
    await start.again()
    page = await playbooks.stub.ListExecutions(pb.ListExecutionsRequest(page_size=1))

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.stub.ListExecutions(
            pb.ListExecutionsRequest(path=PATH, page_token=page.next_page_token)
        )

    assert Refusal(refused.value).fields == ["page_token"]
