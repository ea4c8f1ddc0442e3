"""Fan-out and join, routers, conditions and data between steps: what follows when a step has ended."""

import asyncio
import json

import grpc

from tests.contract.client import OK, Client
from tests.contract.playbooks.catalog import playbook, python_step
from tests.contract.playbooks.locking import locked, wait_until_locked_out
from tests.contract.playbooks.run import Starter
from tests.contract.tables import Tables

FORK = "- {step: start, next: [left, right]}\n"
BOTH = FORK + python_step("left", "[join]") + python_step("right", "[join]")
DIAMOND = playbook(BOTH + python_step("join", more=", data: {sum: '{{ left + right }}'}"))


async def test_both_branches_start_at_once_and_the_join_when_both_have_ended(start: Starter) -> None:
    run = await start(DIAMOND)
    leases = await run.lease_all("left", "right")

    await run.client.complete(leases["right"].lease_token, result_json="2")
    assert await run.steps() == ["start", "left leased 1/1", "right done 1/1"]
    await run.client.complete(leases["left"].lease_token, result_json="40")

    join = await run.lease("join")
    assert json.loads(join.input_json)["data"] == {"sum": 42}


async def test_join_waits_for_a_branch_that_retries(start: Starter) -> None:
    run = await start(DIAMOND.replace("step: left, ", "step: left, retry: {initial_delay: 0}, "))
    leases = await run.lease_all("left", "right")
    await run.client.complete(leases["right"].lease_token, result_json="1")
    await run.client.fail(leases["left"].lease_token)

    assert await run.steps() == ["start", "left retry 1/3", "right done 1/1"]
    await run.complete("left", "1")

    assert await run.steps() == ["start", "left done 2/3", "right done 1/1", "join queued 0/1"]


async def test_branches_that_end_at_the_same_time_at_two_brokers_start_the_join_exactly_once(
    start: Starter, client: Client, second_channel: grpc.aio.Channel
) -> None:
    elsewhere = Client(second_channel)
    first = await start(DIAMOND)
    runs = [first, *[await start.again() for _ in range(24)]]
    leases = await client.poll(50, wait=20)
    assert len(leases) == 50
    brokers = {"left": client, "right": elsewhere}

    outcomes = await asyncio.gather(
        *(brokers[lease.step].complete(lease.lease_token, result_json="1") for lease in leases)
    )

    assert set(outcomes) == {OK}
    for run in runs:
        assert await run.steps() == ["start", "left done 1/1", "right done 1/1", "join queued 0/1"]
    jobs = "SELECT count(*) FROM noetl.queue WHERE execution_id = %s AND node_name = 'join'"
    assert {await run.tables.value(jobs, run.execution_id) for run in runs} == {1}
    joins = await client.poll(50, wait=20)
    assert sorted(lease.execution_id for lease in joins) == [run.execution_id for run in runs]
    await asyncio.gather(*(elsewhere.complete(lease.lease_token) for lease in joins))
    assert {await run.status() for run in runs} == {"COMPLETED"}
    for run in runs:
        assert len(await run.events("execution_completed")) == 1


async def test_branch_that_ends_while_another_is_being_advanced_at_another_broker_is_not_overlooked(
    start: Starter, client: Client, tables: Tables, second_channel: grpc.aio.Channel
) -> None:
    brokers = {"left": client, "right": Client(second_channel)}
    for _ in range(5):
        run = await start(DIAMOND)
        leases = await run.lease_all("left", "right")
        async with locked(tables, "event_log"):
            both = [
                asyncio.ensure_future(brokers[step].complete(lease.lease_token, result_json="1"))
                for step, lease in leases.items()
            ]
            await wait_until_locked_out(tables, 2)

        assert await asyncio.gather(*both) == [OK, OK]
        assert await run.steps() == ["start", "left done 1/1", "right done 1/1", "join queued 0/1"]
        await run.complete("join")


async def test_last_branches_that_end_at_the_same_time_end_the_execution_exactly_once(
    start: Starter, client: Client, second_channel: grpc.aio.Channel
) -> None:
    elsewhere = Client(second_channel)
    ends = playbook(FORK + python_step("left") + python_step("right"))
    runs = [await start(ends) for _ in range(20)]
    leases = await client.poll(40, wait=20)
    brokers = {"left": client, "right": elsewhere}

    await asyncio.gather(*(brokers[lease.step].fail(lease.lease_token) for lease in leases))

    for run in runs:
        ended = await run.events("execution_failed", "step_failed")
        assert [event.event_type for event in ended] == ["step_failed", "step_failed", "execution_failed"]
        assert ended[-1].result["failed_step"] == ended[0].step


async def test_step_that_several_branches_lead_to_at_different_times_starts_once(start: Starter) -> None:
    run = await start(
        playbook(
            "- {step: start, next: [short, long]}\n"
            + python_step("short", "[last]")
            + python_step("long", "[longer]")
            + python_step("longer", "[last]")
            + python_step("last")
        )
    )
    leases = await run.lease_all("short", "long")
    await run.client.complete(leases["short"].lease_token)
    assert "last" not in " ".join(await run.steps())
    await run.client.complete(leases["long"].lease_token)
    await run.complete("longer")
    await run.complete("last")

    started = [event.step for event in await run.events("step_started")]
    assert started == ["start", "short", "long", "longer", "last"]
    assert await run.status() == "COMPLETED"


async def test_data_of_several_branches_is_merged_in_the_order_of_the_steps_later_wins(
    start: Starter,
) -> None:
    run = await start(
        playbook(
            """
            - {step: start, next: [left, right]}
            - {step: left, type: python, code: 'def main(): pass', next: [{step: join, data: {a: '{{ result }}', both: left}}]}
            - {step: right, type: python, code: 'def main(): pass', next: [{step: join, data: {b: '{{ result }}', both: right}}]}
            - {step: join, type: python, code: 'def main(): pass', data: {own: 1, a: default}}
            """
        )
    )
    leases = await run.lease_all("left", "right")
    await run.client.complete(leases["right"].lease_token, result_json="[2]")
    await run.client.complete(leases["left"].lease_token, result_json="[1]")

    join = await run.lease("join")

    assert json.loads(join.input_json)["data"] == {"own": 1, "a": [1], "b": [2], "both": "right"}
