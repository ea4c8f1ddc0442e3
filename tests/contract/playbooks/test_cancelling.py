"""What CancelExecution does to jobs that wait, to jobs that run, and to the execution."""

from collections.abc import Awaitable, Callable

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as broker_pb
from reprise.v1.job_pb2 import Lease

from tests.contract.client import CANCELLED, DEAD, LOST, OK, Refusal
from tests.contract.playbooks.catalog import ONE_STEP, PlaybookClient, playbook, python_step
from tests.contract.playbooks.run import Run, Starter
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

TWO_STEPS = playbook(python_step("task", "[later]", ", retry: {initial_delay: 60}") + python_step("later"))


async def is_dead(run: Run) -> bool:
    """Whether the step has ended as dead."""
    return (await run.standing("task")).startswith("dead")


async def test_cancelling_ends_the_execution_at_once_with_its_reason(start: Starter) -> None:
    run = await start(ONE_STEP)

    await run.playbooks.cancel(run.execution_id, "not needed")

    assert await run.status() == "CANCELLED"
    assert (await run.look()).HasField("finished_at")
    (told,) = await run.events("execution_cancelled")
    assert (told.job_id, told.result) == (0, {"reason": "not needed"})


async def _queued(run: Run) -> str:
    return "dead 0/3"


async def _waiting_for_its_retry(run: Run) -> str:
    await run.fail("task")
    return "dead 1/3"


async def _released(run: Run) -> str:
    await run.client.release((await run.lease("task")).lease_token)
    return "dead 0/3"


@pytest.mark.parametrize("wait", [_queued, _waiting_for_its_retry, _released])
async def test_job_that_waits_is_dead_at_once_with_one_event(
    start: Starter, wait: Callable[[Run], Awaitable[str]]
) -> None:
    run = await start(TWO_STEPS)
    standing = await wait(run)
    before = len(await run.events())

    await run.playbooks.cancel(run.execution_id, "why not")

    assert await run.standing("task") == standing
    dead, ended = (await run.events())[before:]
    assert (dead.event_type, ended.event_type) == ("job_dead", "execution_cancelled")
    attempts = int(standing[5])
    assert dead.result == {
        "attempt": attempts,
        "max_attempts": 3,
        "reason": "cancelled",
        "message": "why not",
    }
    assert await run.client.poll() == []


async def test_worker_of_a_leased_job_is_told_by_its_stream_and_by_extend(start: Starter) -> None:
    run = await start(TWO_STEPS)
    async with run.client.stream(1) as stream:
        (lease,) = await stream.leases(1)
        await stream.ask(received=[lease.lease_token])

        await run.playbooks.cancel(run.execution_id)

        notice = await stream.notice()
        assert (notice.lease_token, notice.kind) == (lease.lease_token, broker_pb.LeaseNotice.KIND_CANCELLED)
        assert (await run.client.extend(lease.lease_token)).outcome == CANCELLED
    assert await run.standing("task") == "leased 1/3"


async def test_attempt_that_completes_all_the_same_is_done_and_nothing_follows(start: Starter) -> None:
    run = await start(TWO_STEPS)
    lease = await run.lease("task")
    await run.playbooks.cancel(run.execution_id)

    outcome = await run.client.complete(lease.lease_token, result_json="1")

    assert outcome == OK
    assert await run.steps() == ["task done 1/3"]
    assert await run.status() == "CANCELLED"
    assert (await run.story())[-2:] == ["execution_cancelled", "action_completed task"]


async def _fail(run: Run, lease: Lease, move_clock: MoveClock) -> str:
    decision = (await run.client.fail(lease.lease_token)).decision
    assert (decision.verdict, decision.reason) == (DEAD, decision.REASON_CANCELLED)
    return "dead 1/3"


async def _release(run: Run, lease: Lease, move_clock: MoveClock) -> str:
    assert await run.client.release(lease.lease_token) == OK
    return "dead 0/3"


async def _let_expire(run: Run, lease: Lease, move_clock: MoveClock) -> str:
    await move_clock(30)
    await eventually(lambda: is_dead(run))
    return "dead 1/3"


@pytest.mark.parametrize("give_up", [_fail, _release, _let_expire])
async def test_attempt_that_ends_otherwise_is_dead_without_a_retry(
    start: Starter, move_clock: MoveClock, give_up: Callable[[Run, Lease, MoveClock], Awaitable[str]]
) -> None:
    run = await start(TWO_STEPS)
    lease = await run.lease("task", lease_seconds=20)
    await run.playbooks.cancel(run.execution_id)

    standing = await give_up(run, lease, move_clock)

    assert await run.steps() == [f"task {standing}"]
    (dead,) = await run.events("job_dead")
    assert dead.result["reason"] == "cancelled"
    assert await run.status() == "CANCELLED"
    assert not await run.events("step_failed", "execution_failed", "action_retry")


async def test_delivery_that_was_not_received_is_dead_when_its_stream_breaks(start: Starter) -> None:
    run = await start(TWO_STEPS)
    async with run.client.stream(1) as stream:
        await stream.leases(1)
        await run.playbooks.cancel(run.execution_id, "why not")

    await eventually(lambda: is_dead(run))

    assert await run.standing("task") == "dead 0/3"
    assert (await run.story())[-2:] == ["lease_released task", "job_dead task"]
    (dead,) = await run.events("job_dead")
    assert (dead.result["reason"], dead.result["message"]) == ("cancelled", "why not")


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_verb_that_ended_a_cancelled_attempt_can_be_repeated_and_no_other_verb_can_follow(
    start: Starter, verb: str
) -> None:
    run = await start(TWO_STEPS)
    token = (await run.lease("task")).lease_token
    await run.playbooks.cancel(run.execution_id)

    async def outcome_of(name: str) -> int:
        answer = await getattr(run.client, name)(token)
        return int(answer if name in ("complete", "release") else answer.outcome)

    assert await outcome_of(verb) == OK
    assert await outcome_of(verb) == OK
    others = {"complete", "fail", "release", "extend"} - {verb}
    assert {await outcome_of(name) for name in others} == {LOST}


async def test_cancelling_again_changes_nothing(start: Starter) -> None:
    run = await start(TWO_STEPS)
    await run.playbooks.cancel(run.execution_id, "first")
    story = await run.story()

    await run.playbooks.cancel(run.execution_id, "second")

    assert await run.story() == story


@pytest.mark.parametrize(("end", "status"), [("complete", "COMPLETED"), ("fail", "FAILED")])
async def test_execution_that_has_ended_otherwise_cannot_be_cancelled(
    start: Starter, end: str, status: str
) -> None:
    run = await start(ONE_STEP)
    await getattr(run, end)("task")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run.playbooks.cancel(run.execution_id)

    refusal = Refusal(refused.value)
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "EXECUTION_ENDED")
    assert await run.status() == status


@pytest.mark.parametrize("reason", ["x" * 1001, "a\0b"])
async def test_reason_that_cannot_be_kept_is_refused(
    start: Starter, playbooks: PlaybookClient, reason: str
) -> None:
    run = await start(ONE_STEP)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await playbooks.cancel(run.execution_id, reason)

    assert Refusal(refused.value).fields == ["reason"]
