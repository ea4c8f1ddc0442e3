"""What StartExecution promises: workload, versions, idempotency keys."""

import asyncio
import json
from typing import Any

import grpc
import pytest

from broker.config import BrokerConfig
from broker.server import running
from tests.contract.client import Refusal
from tests.contract.playbooks.catalog import ONE_STEP, PATH, PlaybookClient, playbook, python_step
from tests.contract.playbooks.run import Starter
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

WITH_WORKLOAD = playbook(
    python_step("task", more=", data: {seen: '{{ workload }}'}"),
    top="workload: {kept: 1, replaced: {a: 1, b: 2}, listed: [1, 2]}\n",
)


async def refused(call: Any) -> Refusal:
    """The refusal that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return Refusal(error.value)


async def test_workload_overlays_the_playbooks_key_by_key(start: Starter) -> None:
    run = await start(WITH_WORKLOAD, replaced={"a": 9}, added="new", empty=None)

    lease = await run.lease("task")

    overlaid = {"kept": 1, "replaced": {"a": 9}, "listed": [1, 2], "added": "new", "empty": None}
    assert json.loads(lease.input_json)["data"]["seen"] == overlaid
    assert dict((await run.look(full=True)).workload) == overlaid


async def test_version_asked_for_runs_and_zero_is_the_newest(
    start: Starter, playbooks: PlaybookClient
) -> None:
    await playbooks.register(playbook(python_step("old")))
    await playbooks.register(playbook(python_step("new")))

    ids = [(await playbooks.start(version=version)).execution_id for version in (1, 0)]

    executions = [await playbooks.execution(execution_id) for execution_id in ids]
    assert [(each.version, each.steps[0].step) for each in executions] == [(1, "old"), (2, "new")]


async def test_running_execution_stays_with_its_version(start: Starter, playbooks: PlaybookClient) -> None:
    run = await start(playbook(python_step("task", "[old]") + python_step("old")))
    await playbooks.register(playbook(python_step("task", "[new]") + python_step("new")))

    await run.complete("task")

    assert await run.steps() == ["task done 1/1", "old queued 0/1"]


@pytest.mark.parametrize(("path", "version"), [("tests/other", 0), (PATH, 2)])
async def test_playbook_that_is_not_there_cannot_be_started(
    playbooks: PlaybookClient, path: str, version: int
) -> None:
    await playbooks.register(ONE_STEP)

    refusal = await refused(playbooks.start(path, version=version))

    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "PLAYBOOK_NOT_FOUND")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"version": -1}, "version"),
        ({"key": "k" * 201}, "idempotency_key"),
        ({"key": "a\0b"}, "idempotency_key"),
        ({"workload": {"big": "x" * 1024 * 1024}}, "workload"),
        ({"workload": {"n": 2**60}}, "workload"),
        ({"workload": {"nul": "\0"}}, "workload"),
    ],
)
async def test_wrong_start_is_refused_by_field(
    playbooks: PlaybookClient, wrong: dict[str, Any], field: str
) -> None:
    await playbooks.register(ONE_STEP)

    refusal = await refused(playbooks.start(**wrong))

    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", [field])


async def test_same_start_with_the_same_key_is_the_first_execution(playbooks: PlaybookClient) -> None:
    await playbooks.register(WITH_WORKLOAD)
    first = await playbooks.start(workload={"a": 1, "b": {"c": [1.0]}}, key="k")

    again = await playbooks.start(workload={"b": {"c": [1]}, "a": 1}, key="k")

    assert first.created
    assert (again.execution_id, again.created) == (first.execution_id, False)
    listed = await playbooks.list_all()
    assert [each.execution_id for each in listed] == [first.execution_id]


async def test_same_start_is_the_first_one_also_when_a_newer_version_came_meanwhile(
    playbooks: PlaybookClient,
) -> None:
    await playbooks.register(ONE_STEP)
    first = await playbooks.start(key="k")
    await playbooks.register(ONE_STEP + "# newer\n")

    again = await playbooks.start(key="k")

    assert (again.execution_id, again.created) == (first.execution_id, False)


@pytest.mark.parametrize("other", [{"workload": {"a": 2}}, {"version": 2}, {"workload": {"a": True}}])
async def test_another_start_with_the_same_key_is_refused(
    playbooks: PlaybookClient, other: dict[str, Any]
) -> None:
    await playbooks.register(ONE_STEP)
    await playbooks.register(ONE_STEP + "# newer\n")
    await playbooks.start(version=1, workload={"a": 1}, key="k")

    refusal = await refused(playbooks.start(**{"version": 1, "workload": {"a": 1}, "key": "k", **other}))

    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED")


async def test_key_belongs_to_its_path(playbooks: PlaybookClient) -> None:
    await playbooks.register(ONE_STEP)
    await playbooks.register(playbook(python_step("task"), path="tests/other"))

    both = [await playbooks.start(path, key="k") for path in (PATH, "tests/other")]

    assert [each.created for each in both] == [True, True]


async def test_starts_at_once_with_one_key_at_two_brokers_are_one_execution(
    playbooks: PlaybookClient, second_channel: grpc.aio.Channel
) -> None:
    await playbooks.register(ONE_STEP)
    clients = (playbooks, PlaybookClient(second_channel))

    for key in map(str, range(10)):
        answers = await asyncio.gather(*(client.start(key=key) for client in clients for _ in range(3)))

        assert len({answer.execution_id for answer in answers}) == 1
        assert [answer.created for answer in answers].count(True) == 1


async def test_key_is_kept_24_hours_after_the_end_and_then_free(
    playbooks: PlaybookClient, database_url: str, move_clock: MoveClock
) -> None:
    await playbooks.register(ONE_STEP)
    for key in ("early", "late"):
        await playbooks.cancel((await playbooks.start(key=key)).execution_id)
        await move_clock(120)
    await move_clock(24 * 3600 - 180)

    # Upkeep frees keys once a minute; a broker does so first of all when it starts.
    async with running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)):

        async def early_is_free() -> bool:
            return (await playbooks.start(key="early")).created

        await eventually(early_is_free)
        assert not (await playbooks.start(key="late")).created


async def test_start_that_its_caller_gave_up_does_no_harm_to_the_next(playbooks: PlaybookClient) -> None:
    await playbooks.register(ONE_STEP)
    given_up = [asyncio.ensure_future(playbooks.start(key=str(number))) for number in range(50)]
    await asyncio.wait(given_up, return_when=asyncio.FIRST_COMPLETED)
    for call in given_up:
        call.cancel()

    answers = [await playbooks.start(key=str(number)) for number in range(50)]

    listed = [execution.execution_id for execution in await playbooks.list_all()]
    assert sorted(listed) == sorted(answer.execution_id for answer in answers)
