"""What a step that cannot go on means for its execution: dead steps, pending retries, errors in templates and conditions."""

from functools import partial

import grpc
import pytest
from reprise.v1.queue_service_pb2 import JobFilter, ListJobsRequest
from reprise.v1.queue_service_pb2_grpc import QueueServiceStub

from tests.contract.client import DEAD, LOST, OK, RETRY, Client
from tests.contract.playbooks.catalog import ONE_STEP, RETRIED, playbook, python_step
from tests.contract.playbooks.locking import locked, turn_waits_since
from tests.contract.playbooks.run import Run, Starter
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

FORK = "- {step: start, next: [left, right]}\n"


async def test_dead_step_starts_nothing_more_and_the_others_run_to_their_end_retries_included(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(
        playbook(
            FORK
            + python_step("left", "[after_left]")
            + python_step("right", "[after_right]", ", retry: {initial_delay: 60}")
            + python_step("after_left")
            + python_step("after_right")
        )
    )
    leases = await run.lease_all("left", "right")
    await run.client.fail(leases["right"].lease_token, "not yet")
    await run.client.fail(leases["left"].lease_token, "broken")
    assert await run.steps() == ["start", "left dead 1/1", "right retry 1/3"]
    assert await run.status() == "RUNNING"

    await move_clock(60)
    await run.complete("right")

    execution = await run.look()
    assert await run.steps() == ["start", "left dead 1/1", "right done 2/3"]
    assert (await run.status(), execution.failed_step) == ("FAILED", "left")
    assert execution.failure.message == "broken"


async def test_first_step_that_died_is_the_failed_one(start: Starter) -> None:
    run = await start(playbook(FORK + python_step("left") + python_step("right")))
    leases = await run.lease_all("left", "right")
    await run.client.fail(leases["right"].lease_token, "first")
    await run.client.fail(leases["left"].lease_token, "second")

    execution = await run.look()

    assert (execution.failed_step, execution.failure.message) == ("right", "first")
    assert [event.step for event in await run.events("step_failed")] == ["right", "left"]


async def test_execution_never_fails_while_a_retry_is_pending(start: Starter, move_clock: MoveClock) -> None:
    run = await start(RETRIED)

    for wait in (1.0, 1.5):
        assert (await run.fail("task")).verdict == RETRY
        assert await run.status() == "RUNNING"
        assert not await run.events("step_failed", "execution_failed")
        await move_clock(wait)
    assert (await run.fail("task")).verdict == DEAD

    assert await run.status() == "FAILED"


@pytest.mark.parametrize(
    "template", ["{{ workload.absent > 1 }}", "{{ 1 / workload.zero }}", "{{ workload.list < 3 }}"]
)
async def test_step_that_cannot_be_rendered_is_dead_without_an_attempt_and_says_where(
    start: Starter, channel: grpc.aio.Channel, template: str
) -> None:
    run = await start(
        playbook(
            python_step("before", "[task]")
            + f"- step: task\n  type: python\n  code: 'def main(): pass'\n  data:\n    broken:\n      - 1\n      - '{template}'\n"
            + "  retry: 5\n  next: [after]\n"
            + python_step("after")
        ),
        zero=0,
        list=[],
    )
    await run.complete("before")

    execution = await run.look()
    assert await run.steps() == ["before done 1/1", "task dead 0/5"]
    assert await run.standing("task") == "dead 0/5"
    assert (await run.status(), execution.failed_step) == ("FAILED", "task")
    assert execution.failure.type == "template_error"
    assert execution.failure.message.startswith("task.data.broken[1] (line 10, column 11): ")
    events = await run.events()
    told = [event.event_type for event in events if event.step == "task"]
    assert told == ["step_started", "job_enqueued", "job_dead", "step_failed"]
    (dead,) = await run.events("job_dead")
    assert (dead.attempt, dead.result["attempt"], dead.result["max_attempts"]) == (0, 0, 5)
    assert (dead.result["reason"], dead.result["error_type"]) == ("not_rendered", "template_error")
    assert dead.result["error"] == execution.failure.message
    assert await run.client.poll() == []
    wanted = JobFilter(execution_id=run.execution_id, failure_type="template_error")
    (job,) = (await QueueServiceStub(channel).ListJobs(ListJobsRequest(filter=wanted))).jobs
    assert (job.step, job.last_failure.message) == ("task", execution.failure.message)


async def test_step_that_cannot_be_rendered_lets_those_that_run_come_to_their_end(start: Starter) -> None:
    run = await start(
        playbook(
            FORK + python_step("right") + python_step("left", more=", data: {broken: '{{ 1 / zero }}'}")
        ),
        zero=0,
    )
    assert await run.steps() == ["start", "right queued 0/1", "left dead 0/1"]
    assert await run.status() == "RUNNING"

    await run.complete("right")

    assert (await run.status(), (await run.look()).failed_step) == ("FAILED", "left")


async def test_when_that_raises_ends_the_execution_as_condition_error_of_the_step_it_leaves(
    start: Starter,
) -> None:
    run = await start(
        playbook(
            "- {step: task, type: python, code: 'def main(): pass', next: [{when: '{{ result.n > 1 }}', step: more}, less]}\n"
            + python_step("more")
            + python_step("less")
        )
    )

    await run.complete("task", '{"n": null}')

    execution = await run.look()
    assert (await run.status(), execution.failed_step) == ("FAILED", "task")
    assert execution.failure.type == "condition_error"
    assert execution.failure.message.startswith("task.next[0].when (line 3, column 72): ")
    assert await run.steps() == ["task done 1/1"]
    (told,) = await run.events("execution_failed")
    assert told.result["error_type"] == "condition_error"


async def test_expired_lease_of_a_step_is_decided_like_a_failure(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(RETRIED.replace("initial_delay: 1", "initial_delay: 5, retry_when: '{{ false }}'"))
    for attempt in (1, 2, 3):
        lease = await run.lease("task", lease_seconds=20)
        assert lease.attempt == attempt
        await move_clock(20)
        await eventually(partial(_has_errors, run, attempt))
        assert await run.client.complete(lease.lease_token) == LOST
        assert (await run.client.fail(lease.lease_token)).outcome == LOST
        await move_clock(60)

    assert await run.steps() == ["task dead 3/3"]
    assert await run.status() == "FAILED"
    errors = await run.events("action_error")
    assert [(event.attempt, event.result["error_type"]) for event in errors] == [
        (attempt, "lease_expired") for attempt in (1, 2, 3)
    ]
    retries = await run.events("action_retry")
    assert [event.result["reason"] for event in retries] == ["worker_lost", "worker_lost"]
    assert (await run.look()).failure.type == "lease_expired"


async def test_execution_that_is_held_up_delays_the_expiry_of_no_other_job(
    start: Starter, client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    run = await start(ONE_STEP)
    await run.lease("task", lease_seconds=30)
    job_id = await client.enqueue(queue="plain")
    await client.lease(queues=["plain"], lease_seconds=60)

    async def plain_job_is_dead() -> bool:
        return await tables.standing(job_id) == "dead 1/1"

    async with locked(tables, "execution"):
        await move_clock(31)
        since = await turn_waits_since(tables)
        await move_clock(60)

        await eventually(plain_job_is_dead)

        assert await turn_waits_since(tables) == since, "the step still waits where it waited"
    await eventually(partial(_has_errors, run, 1))


async def test_step_runs_at_most_ten_minutes_unless_it_says_otherwise(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(playbook(python_step("task")))
    lease = await run.lease("task", lease_seconds=3600)
    assert lease.attempt_timeout.ToTimedelta().total_seconds() == 600
    assert 590 < lease.lease_duration.ToTimedelta().total_seconds() <= 600
    await move_clock(590)
    extended = await run.client.extend(lease.lease_token)
    assert (extended.outcome, extended.lease_duration.ToTimedelta().total_seconds() <= 10) == (OK, True)

    await move_clock(10)

    await eventually(lambda: _has_errors(run, 1))
    (error,) = await run.events("action_error")
    assert error.result["error_type"] == "timeout"
    assert (await run.look()).failure.type == "timeout"


async def test_delivery_that_breaks_its_client_three_times_in_a_row_costs_the_attempt(start: Starter) -> None:
    run = await start(playbook(python_step("task")))
    for _ in range(3):
        async with run.client.stream(1) as stream:
            (lease,) = await stream.leases(1)
            assert lease.attempt == 1
        before = lease.lease_token
        await eventually(lambda: _is_free(run))
    assert (await run.client.extend(before)).outcome == LOST

    assert await run.steps() == ["task dead 1/1"]
    assert [event.event_type for event in await run.events() if event.event_type.startswith("lease")] == [
        "lease_released"
    ] * 2
    assert (await run.status(), (await run.look()).failure.type) == ("FAILED", "lease_expired")


async def test_released_step_is_available_at_once_with_its_attempt_restored(start: Starter) -> None:
    run = await start(RETRIED)

    assert await run.client.release((await run.lease("task")).lease_token) == OK

    assert await run.standing("task") == "queued 0/3"
    (released,) = await run.events("lease_released")
    assert (released.step, released.result["attempt"]) == ("task", 1)
    assert (await run.lease("task")).attempt == 1


@pytest.mark.parametrize("result", ["1e999", '{"n": [-1e999]}'])
@pytest.mark.parametrize(
    "following", ["", "- {step: later, type: python, code: 'def main(): pass', data: {seen: '{{ task }}'}}"]
)
async def test_number_beyond_all_floats_fails_what_needs_it_and_everything_can_still_be_read(
    start: Starter, result: str, following: str
) -> None:
    run = await start(playbook(python_step("task", "[later]" if following else "[]") + following))

    await run.complete("task", result)

    execution = await run.look()
    assert (await run.status(), execution.failure.type) == ("FAILED", "template_error")
    assert execution.failed_step == ("later" if following else "task")
    assert (await run.events())[-1].event_type == "execution_failed"
    assert len(await run.tables.rows("SELECT input FROM noetl.queue")) == len(execution.steps)


async def _has_errors(run: Run, count: int) -> bool:
    return len(await run.events("action_error")) == count


async def _is_free(run: Run) -> bool:
    return not (await run.standing("task")).startswith("leased")
