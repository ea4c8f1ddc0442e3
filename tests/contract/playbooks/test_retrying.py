"""What `retry` of a step may be, and what its conditions see."""

import pytest

from tests.contract.client import DEAD
from tests.contract.playbooks.catalog import playbook, python_step
from tests.contract.playbooks.run import Starter
from tests.fixtures_database import MoveClock


@pytest.mark.parametrize(
    ("retry", "max_attempts", "waits"),
    [
        ("true", 3, [1.0, 1.5]),
        ("5", 5, [1.0, 1.5, 2.25, 3.375]),
        ("{}", 3, [1.0, 1.5]),
        ("{max_attempts: 4, initial_delay: 500ms, backoff_multiplier: 3, max_delay: 4}", 4, [0.5, 1.5, 4.0]),
        ("1", 1, []),
        ("0", 1, []),
        ("false", 1, []),
    ],
)
async def test_retry_is_true_or_a_number_or_a_mapping(
    start: Starter, move_clock: MoveClock, retry: str, max_attempts: int, waits: list[float]
) -> None:
    run = await start(playbook(python_step("task", more=f", retry: {retry}")))

    assert await run.fail_until_dead("task", move_clock) == waits
    assert await run.standing("task") == f"dead {max_attempts}/{max_attempts}"


async def test_step_without_retry_has_one_attempt(start: Starter) -> None:
    run = await start(playbook(python_step("task")))

    decision = await run.fail("task")

    assert (decision.verdict, decision.reason) == (DEAD, decision.REASON_NO_POLICY)
    assert await run.standing("task") == "dead 1/1"


async def test_every_step_has_its_own_retry(start: Starter, move_clock: MoveClock) -> None:
    run = await start(
        playbook(
            python_step("first", "[second]", ", retry: 2")
            + python_step("second", "[third]", ", retry: {max_attempts: 4, initial_delay: 2}")
            + python_step("third")
        )
    )
    await run.fail("first")
    await move_clock(1)
    await run.complete("first")

    decision = await run.fail("second")
    assert decision.delay.ToTimedelta().total_seconds() == 2
    await move_clock(2)
    await run.complete("second")
    await run.fail("third")

    assert await run.steps() == ["first done 2/2", "second done 2/4", "third dead 1/1"]


async def test_task_of_the_workbook_brings_its_retry_and_the_step_may_have_its_own(
    start: Starter, move_clock: MoveClock
) -> None:
    run = await start(
        playbook(
            """
            - {step: as_it_is, type: workbook, name: fetch, next: [otherwise]}
            - {step: otherwise, type: workbook, name: fetch, retry: {max_attempts: 2, initial_delay: 7}}
            """,
            top="""
            workbook:
              - {name: fetch, type: python, code: 'def main(): pass', retry: {max_attempts: 4, initial_delay: 3}}
            """,
        )
    )
    first = await run.fail("as_it_is")
    await move_clock(3)
    await run.complete("as_it_is")
    second = await run.fail("otherwise")

    assert [(d.max_attempts, d.delay.ToTimedelta().total_seconds()) for d in (first, second)] == [
        (4, 3),
        (2, 7),
    ]


@pytest.mark.parametrize(
    ("condition", "standing"),
    [
        ("retry_when: \"{{ error != None and 'busy' in error }}\"", "dead 2/9"),
        ('retry_when: "{{ status_code in [429, 503] }}"', "dead 3/9"),
        ('retry_when: "{{ data.left > 1 }}"', "dead 1/9"),
        ('retry_when: "{{ result.data.left > 0 }}"', "dead 2/9"),
        ('retry_when: "{{ attempt < 4 }}"', "dead 4/9"),
        ("stop_when: \"{{ 'invalid' in (error | lower) }}\"", "dead 3/9"),
        ('stop_when: "{{ status_code == 503 }}"', "dead 2/9"),
        ('stop_when: "{{ data.left == 0 }}"', "dead 2/9"),
        ('stop_when: "{{ attempt == max_attempts - 4 }}"', "dead 5/9"),
        ("retry_when: true, stop_when: \"{{ error_type == 'Refused' }}\"", "dead 3/9"),
    ],
)
async def test_conditions_see_error_and_status_code_and_data_and_attempt(
    start: Starter, condition: str, standing: str
) -> None:
    answers = [
        ("busy", "Busy", 429, '{"data": {"left": 1}}'),
        ("down", "Down", 503, '{"data": {"left": 0}}'),
        *[("INVALID", "Refused", 400, "null")] * 7,
    ]
    retry = f"{{max_attempts: 9, initial_delay: 0, {condition}}}"
    run = await start(playbook(f"- step: task\n  type: python\n  code: 'def main(): pass'\n  retry: {retry}"))

    for message, type_, status_code, result_json in answers:
        decision = await run.fail(
            "task", message, type=type_, status_code=status_code, result_json=result_json
        )
        if decision.verdict == DEAD:
            break

    assert await run.standing("task") == standing
