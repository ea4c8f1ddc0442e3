"""What follows a step: conditions, routers, and the execution's result."""

import json

import pytest

from tests.contract.playbooks.catalog import playbook, python_step
from tests.contract.playbooks.run import Starter

FORK = "- {step: start, next: [left, right]}\n"


async def test_all_items_whose_when_holds_are_taken_and_else_those_without_one(start: Starter) -> None:
    choice = playbook(
        """
        - step: task
          type: python
          code: 'def main(): pass'
          next:
            - {when: "{{ result.n > 1 }}", step: many}
            - {when: "{{ result.n > 2 }}", step: more}
            - few
        - {step: many, type: python, code: 'def main(): pass'}
        - {step: more, type: python, code: 'def main(): pass'}
        - {step: few, type: python, code: 'def main(): pass'}
        """
    )
    taken = {}
    for n in (1, 2, 3):
        run = await start(choice)
        await run.complete("task", json.dumps({"n": n}))
        taken[n] = [step.step for step in (await run.look()).steps][1:]
        await run.playbooks.cancel(run.execution_id)

    assert taken == {1: ["few"], 2: ["many"], 3: ["many", "more"]}


async def test_where_no_item_holds_the_branch_ends_and_the_execution_completes(start: Starter) -> None:
    run = await start(
        playbook(
            "- {step: task, type: python, code: 'def main(): pass', next: [{when: '{{ false }}', step: never}]}\n"
            + python_step("never")
        )
    )

    await run.complete("task", '"alone"')

    assert await run.steps() == ["task done 1/1"]
    assert (await run.status(), await run.result()) == ("COMPLETED", "alone")


async def test_routers_are_passed_at_once_with_the_data_that_they_got(start: Starter) -> None:
    run = await start(
        playbook(
            """
            - {step: start, next: [{step: middle, data: {n: '{{ workload.n }}'}}]}
            - {step: middle, next: [task]}
            - {step: task, type: python, code: 'def main(): pass', next: [end]}
            - {step: end, result: {sum: '{{ task + 1 }}'}}
            """
        ),
        n=1,
    )
    lease = await run.lease("task")
    assert json.loads(lease.input_json)["data"] == {"n": 1}
    await run.client.complete(lease.lease_token, result_json="2")

    execution = await run.look()

    assert [(step.step, bool(step.job_id)) for step in execution.steps] == [
        ("start", False), ("middle", False), ("task", True), ("end", False),
    ]  # fmt: skip
    assert (await run.status(), await run.result()) == ("COMPLETED", {"sum": 3})


async def test_execution_of_routers_alone_completes_in_its_start(start: Starter) -> None:
    run = await start(
        playbook("- {step: start, next: [end]}\n- {step: end, result: '{{ workload.n }}'}"), n=7
    )

    assert await run.steps() == ["start", "end"]
    assert (await run.status(), await run.result()) == ("COMPLETED", 7)


@pytest.mark.parametrize(("order", "result"), [(("left", "right"), 2), (("right", "left"), 1)])
async def test_without_an_end_the_result_is_that_of_the_step_that_ended_last(
    start: Starter, order: tuple[str, str], result: int
) -> None:
    run = await start(playbook(FORK + python_step("left") + python_step("right")))
    leases = await run.lease_all("left", "right")
    for step in order:
        await run.client.complete(leases[step].lease_token, result_json={"left": "1", "right": "2"}[step])

    assert await run.result() == result


async def test_result_of_end_wins_over_that_of_the_step_that_ended_last(start: Starter) -> None:
    run = await start(
        playbook("- {step: start, next: [slow, end]}\n" + python_step("slow") + python_step("end"))
    )
    leases = await run.lease_all("slow", "end")
    await run.client.complete(leases["end"].lease_token, result_json='"of end"')
    await run.client.complete(leases["slow"].lease_token, result_json='"of slow"')

    assert await run.result() == "of end"


async def test_job_of_a_step_is_queued_as_the_step_says(start: Starter) -> None:
    run = await start(
        playbook(
            python_step(
                "task", more=", queue: mail, priority: 7, dependency: smtp, timeout: 90, data: {n: '{{ n }}'}"
            )
        ),
        n=1.5,
    )

    lease = await run.lease("task", queues=["mail"])

    assert (lease.queue, lease.kind, lease.dependency) == ("mail", "python", "smtp")
    assert lease.attempt_timeout.ToTimedelta().total_seconds() == 90
    assert json.loads(lease.input_json) == {"code": "def main(): pass", "data": {"n": 1.5}}


async def test_long_results_reach_conditions_and_templates_and_routers_and_the_end(start: Starter) -> None:
    run = await start(
        playbook(
            python_step(
                "first-one", "[{step: second, when: '{{ result.go }}', data: {text: '{{ data.text }}'}}]"
            )
            + python_step("second", "[{step: route, data: {passed: '{{ result }}'}}]")
            + "- {step: route, next: [third]}\n"
            + python_step("third", "[end]", ", data: {first: \"{{ results['first-one'].text }}\"}")
            + "- {step: end, result: {second: '{{ second }}', third: '{{ third }}'}}"
        )
    )
    long = "x" * 5000

    await run.complete("first-one", json.dumps({"go": True, "text": long}))
    second = await run.lease("second")
    await run.client.complete(second.lease_token, result_json=json.dumps([long]))
    third = await run.lease("third")
    await run.client.complete(third.lease_token, result_json=json.dumps(long))

    assert json.loads(second.input_json)["data"] == {"text": long}
    assert json.loads(third.input_json)["data"] == {"first": long, "passed": [long]}
    assert await run.result() == {"second": [long], "third": long}
