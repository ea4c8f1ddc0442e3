"""The lines of the seed, each on a step of a playbook: attempts, waits, statuses, and both of its queries."""

from datetime import UTC, datetime
from pathlib import Path

from tests.contract.playbooks.run import Starter
from tests.fixtures_database import MoveClock

SEED = """
apiVersion: noetl.io/v1
kind: Playbook
metadata:
  name: test_retry_verification
  path: tests/retry/verify
workflow:
  - step: start
    next: [fail_task]
  - step: fail_task
    type: python
    code: |
      def main(input_data):
          raise Exception("Test retry")
    retry:
      max_attempts: 3
      initial_delay: 1.0
      retry_when: "{{ error != None }}"
    next: [end]
  - step: end
"""
FIVE = SEED.replace("max_attempts: 3", "max_attempts: 5\n      backoff_multiplier: 1.5").replace("1.0", "2")

# As they stand in the seed.
_QUEUE_QUERY = """
SELECT queue_id, status, attempts, max_attempts, available_at
FROM noetl.queue
WHERE execution_id = <ID>;
"""
_EVENT_QUERY = """
SELECT event_type, node_name, result
FROM noetl.event
WHERE execution_id = <ID>
AND event_type IN ('action_started', 'action_error', 'action_retry', 'action_completed');
"""


def test_example_is_the_playbook_of_the_seed_word_for_word() -> None:
    example = Path(__file__).parents[3] / "examples" / "retry.yaml"

    assert example.read_text() == SEED.lstrip()


async def test_three_attempts_end_dead_at_three_of_three_with_waits_of_1_and_1_5_seconds(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(SEED)

    waits = await run.fail_until_dead("fail_task", move_clock)

    assert waits == [1.0, 1.5]
    assert await run.standing("fail_task") == "dead 3/3"
    execution = await run.look()
    assert (await run.status(), execution.failed_step) == ("FAILED", "fail_task")
    assert execution.failure.message == "Test retry"


async def test_five_attempts_end_dead_at_five_of_five_with_waits_of_2_and_3_and_4_5_and_6_75_seconds(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(FIVE)

    waits = await run.fail_until_dead("fail_task", move_clock)

    assert waits == [2.0, 3.0, 4.5, 6.75]
    assert await run.standing("fail_task") == "dead 5/5"
    retries = await run.events("action_retry")
    assert [event.result["retry_delay_seconds"] for event in retries] == waits


async def test_step_that_fails_twice_and_then_succeeds_goes_on_to_next_and_the_execution_completes(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(SEED)
    for wait in (1.0, 1.5):
        await run.fail("fail_task")
        await move_clock(wait)

    await run.complete("fail_task", '{"answer": 42}')

    assert await run.steps() == ["start", "fail_task done 3/3", "end"]
    assert (await run.status(), await run.result()) == ("COMPLETED", {"answer": 42})


async def test_the_queue_shows_the_six_moments_of_a_step_that_always_fails(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(SEED)

    async def row() -> tuple[str, int, int, datetime | None]:
        query = _QUEUE_QUERY.replace("<ID>", str(run.execution_id))
        ((_, status, attempts, max_attempts, available_at),) = await run.tables.rows(query)
        return status, attempts, max_attempts, available_at

    moments = []
    for wait in (1.0, 1.5, 0.0):
        lease = await run.lease("fail_task")
        moments.append(await row())
        before = await run.tables.now()
        decision = (await run.client.fail(lease.lease_token)).decision
        moments.append(await row())
        if wait:
            available_at = moments[-1][3]
            assert available_at == decision.available_at.ToDatetime(UTC)
            assert 0 <= (available_at - before).total_seconds() - wait < 1
            await move_clock(wait)

    assert [moment[:3] for moment in moments] == [
        ("leased", 1, 3), ("retry", 1, 3),
        ("leased", 2, 3), ("retry", 2, 3),
        ("leased", 3, 3), ("dead", 3, 3),
    ]  # fmt: skip
    assert [moment[3] is None for moment in moments] == [True, False, True, False, True, True]


async def test_the_event_query_shows_each_attempt_with_its_error_and_each_retry_with_its_wait(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(SEED)
    await run.fail("fail_task", "first")
    await move_clock(1)
    await run.complete("fail_task", '"second"')

    rows = await run.tables.rows(_EVENT_QUERY.replace("<ID>", str(run.execution_id)))

    assert {node_name for _, node_name, _ in rows} == {"fail_task"}
    told = [(event_type, result) for event_type, _, result in rows]
    assert [event_type for event_type, _ in told] == [
        "action_started", "action_error", "action_retry", "action_started", "action_completed",
    ]  # fmt: skip
    assert [told[0][1]["attempt"], told[3][1]["attempt"]] == [1, 2]
    assert (told[1][1]["attempt"], told[1][1]["error"]) == (1, "first")
    assert (told[2][1]["attempt"], told[2][1]["max_attempts"], told[2][1]["retry_delay_seconds"]) == (1, 3, 1)
    assert told[4][1] == "second"
