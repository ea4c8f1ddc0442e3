"""Whatever the jobs of a cancelled execution are doing, each ends exactly once."""

import asyncio

import grpc

from tests.contract.client import Client
from tests.contract.playbooks.catalog import playbook, python_step
from tests.contract.playbooks.run import Run, Starter
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

TERMINAL = ("action_completed", "job_dead")


async def test_every_job_of_a_cancelled_fan_out_ends_in_exactly_one_terminal_event(
    start: Starter, move_clock: MoveClock
) -> None:
    steps = ["waits", "completes", "fails", "is_released", "expires"]
    run = await start(
        playbook(
            f"- {{step: start, next: [{', '.join(steps)}]}}\n"
            + "".join(python_step(step, "[end]", ", retry: 3") for step in steps)
            + "- step: end"
        )
    )
    held = await run.client.poll(5, wait=20, lease_seconds=20)
    by_step = {lease.step: lease for lease in held}
    await run.client.release(by_step["waits"].lease_token)

    await run.playbooks.cancel(run.execution_id)
    await run.client.complete(by_step["completes"].lease_token)
    await run.client.fail(by_step["fails"].lease_token)
    await run.client.release(by_step["is_released"].lease_token)
    await move_clock(30)

    async def all_ended() -> bool:
        return len(await run.events(*TERMINAL)) == len(steps)

    await eventually(all_ended)
    ended = await run.events(*TERMINAL)
    assert sorted((event.step, event.event_type) for event in ended) == [
        ("completes", "action_completed"),
        ("expires", "job_dead"),
        ("fails", "job_dead"),
        ("is_released", "job_dead"),
        ("waits", "job_dead"),
    ]
    assert await run.client.poll() == []


async def test_jobs_that_move_at_two_brokers_while_they_are_cancelled_all_end_exactly_once(
    start: Starter, client: Client, second_channel: grpc.aio.Channel, move_clock: MoveClock
) -> None:
    steps = ("one", "two", "three")
    text = playbook(
        "- {step: start, next: [one, two, three]}\n"
        + "".join(
            python_step(step, more=", retry: {max_attempts: 99, initial_delay: 0.001}") for step in steps
        )
    )
    runs = [await start(text) for _ in range(15)]

    async def work(broker: Client) -> None:
        while leases := await broker.poll(5, wait=0.3):
            await asyncio.gather(*(broker.fail(lease.lease_token) for lease in leases))

    await asyncio.gather(
        *(work(broker) for broker in (client, Client(second_channel)) for _ in range(2)),
        *(run.playbooks.cancel(run.execution_id) for run in runs),
    )
    await move_clock(60)

    for run in runs:

        async def all_ended(run: Run = run) -> bool:
            return all(step.split()[-2] == "dead" for step in (await run.steps())[1:])

        await eventually(all_ended)
        ended = await run.events(*TERMINAL)
        assert sorted(str(event.step) for event in ended) == sorted(steps)
