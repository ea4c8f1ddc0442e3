"""Every event of an execution, in order and with its fields, as noetl.event shows it."""

from typing import Any

from tests.contract.playbooks.catalog import playbook, python_step
from tests.contract.playbooks.run import Run, Starter
from tests.fixtures_database import MoveClock

RETRIED = playbook(
    "- {step: start, next: [task]}\n"
    + python_step("task", "[end]", ", retry: {max_attempts: 2, retry_when: '{{ attempt < 9 }}'}")
    + "- step: end"
)
POLICY = {
    "max_attempts": 2,
    "initial_delay": 1.0,
    "backoff_multiplier": 1.5,
    "max_delay": 60.0,
    "jitter": "none",
    "retry_when": "{{ attempt < 9 }}",
}


async def told(run: Run) -> list[tuple[str, str | None, int, Any]]:
    """(event_type, step, attempt, result) of every event; those of the execution itself are told without a job."""
    events = await run.events()
    job_ids = {event.job_id for event in events if event.event_type.startswith(("job_", "action_"))}
    assert len(job_ids) == 1
    assert 0 not in job_ids
    assert {e.job_id for e in events if e.event_type.startswith(("execution_", "step_"))} == {0}
    return [(event.event_type, event.step, event.attempt, event.result) for event in events]


def started(attempt: int, max_attempts: int) -> dict[str, Any]:
    """The result of an action_started."""
    return {
        "attempt": attempt,
        "max_attempts": max_attempts,
        "is_retry": attempt > 1,
        "worker_id": "worker-1",
    }


async def test_plain_success_is_three_events_of_its_job_among_those_of_the_execution(start: Starter) -> None:
    run = await start(playbook(python_step("task")))

    await run.complete("task", '{"n": 1.50}')

    assert await told(run) == [
        ("execution_started", None, 0, None),
        ("step_started", "task", 0, None),
        ("job_enqueued", "task", 0, None),
        ("action_started", "task", 1, started(1, 1)),
        ("action_completed", "task", 1, {"n": 1.5}),
        ("step_completed", "task", 0, None),
        ("execution_completed", None, 0, {"result": {"n": 1.5}}),
    ]


async def test_retry_that_succeeds_is_told_attempt_by_attempt_between_the_routers(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(RETRIED)
    decision = await run.fail(
        "task",
        "mailbox busy",
        type="mail.busy",
        status_code=450,
        result_json='{"queue": 9}',
        stack_trace="line 1",
    )
    await move_clock(1)
    await run.complete("task", "7")

    events = await told(run)

    error, retry = events[6][3], events[7][3]
    assert 0 <= error.pop("elapsed") < 60
    assert error == {
        "attempt": 1,
        "error": "mailbox busy",
        "error_type": "mail.busy",
        "status_code": 450,
        "stack_trace": "line 1",
        "result": {"queue": 9},
        "policy": POLICY,
    }
    assert retry.pop("available_at").startswith(decision.available_at.ToDatetime().isoformat()[:23])
    assert retry == {
        "attempt": 1,
        "max_attempts": 2,
        "reason": "retry_when",
        "message": "attempt 1 of 2 failed: retried in 1 s because retry_when is true",
        "retry_delay_seconds": 1.0,
        "delay_source": "backoff",
        "trace": [
            ["retry_when", "{{ attempt < 9 }}", "true"],
            ["attempts", "attempt < max_attempts", "1 < 2"],
            ["delay", "min(1 s * 1.5^0, 60 s)", "1 s"],
        ],
    }
    assert [event[:3] for event in events] == [
        ("execution_started", None, 0),
        ("step_started", "start", 0),
        ("step_completed", "start", 0),
        ("step_started", "task", 0),
        ("job_enqueued", "task", 0),
        ("action_started", "task", 1),
        ("action_error", "task", 1),
        ("action_retry", "task", 1),
        ("action_started", "task", 2),
        ("action_completed", "task", 2),
        ("step_completed", "task", 0),
        ("step_started", "end", 0),
        ("step_completed", "end", 0),
        ("execution_completed", None, 0),
    ]
    assert (events[8][3], events[9][3], events[-1][3]) == (started(2, 2), 7, {"result": 7})


async def test_death_ends_with_job_dead_and_then_the_failures_of_step_and_execution(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(RETRIED)
    await run.fail("task", "first")
    await move_clock(1)
    await run.fail("task", "second", type="Broken", status_code=500)

    events = await told(run)

    dead, step_failed, execution_failed = events[-3:]
    assert [event[:3] for event in events[5:]] == [
        ("action_started", "task", 1),
        ("action_error", "task", 1),
        ("action_retry", "task", 1),
        ("action_started", "task", 2),
        ("action_error", "task", 2),
        ("job_dead", "task", 2),
        ("step_failed", "task", 0),
        ("execution_failed", None, 0),
    ]
    assert dead[3] == {
        "attempt": 2,
        "max_attempts": 2,
        "reason": "attempts_exhausted",
        "message": "attempt 2 of 2 failed: dead because no attempt is left",
        "trace": [
            ["retry_when", "{{ attempt < 9 }}", "true"],
            ["attempts", "attempt < max_attempts", "2 < 2"],
        ],
    }
    failure = {"error": "second", "error_type": "Broken", "status_code": 500}
    assert step_failed[3] == failure
    assert execution_failed[3] == {"failed_step": "task", **failure}


async def test_events_of_one_execution_rise_in_their_ids(start: Starter) -> None:
    run = await start(RETRIED)
    await run.complete("task")

    ids = await run.tables.rows(
        "SELECT event_id FROM noetl.event WHERE execution_id = %s ORDER BY created_at, event_id",
        run.execution_id,
    )

    assert ids == sorted(set(ids))
