"""Advancing an execution: every line of the semantics under "Playbooks"."""

from datetime import timedelta

import pytest

from broker.playbook.advance import advance
from broker.playbook.progress import (
    CompleteExecution,
    FailExecution,
    PassRouter,
    Progress,
    RefuseStep,
    StartStep,
    StepRecord,
)
from broker.policy.facts import Failure
from broker.policy.retry_policy import RetryPolicy
from tests.unit.playbook.playbooks import Execution, parse, python_step

DIAMOND = (
    "- {step: start, next: [left, right]}\n"
    + python_step("left", following="[join]")
    + python_step("right", following="[join]")
    + python_step("join", following="[end]")
    + "- step: end\n"
)


def started(actions: tuple[object, ...]) -> list[str]:
    return [action.step for action in actions if isinstance(action, StartStep)]


def test_step_is_started_with_all_that_its_job_needs() -> None:
    playbook = parse(
        "- {step: a, type: python, code: x, queue: q, priority: 3, timeout: 5s, dependency: d, retry: 4, data: {n: 1}}"
    )
    assert advance(playbook, Progress(1, {}, {})) == (
        StartStep(
            step="a",
            kind="python",
            input={"code": "x", "data": {"n": 1}},
            queue="q",
            priority=3,
            retry=RetryPolicy(max_attempts=4),
            attempt_timeout=timedelta(seconds=5),
            dependency="d",
        ),
    )


def test_attempt_of_a_step_may_run_ten_minutes_unless_it_says_otherwise() -> None:
    [action] = advance(parse(python_step("a")), Progress(1, {}, {}))
    assert isinstance(action, StartStep)
    assert action.attempt_timeout == timedelta(minutes=10)


def test_every_step_carries_its_own_retry_policy() -> None:
    """The reference carried the policy of the first dispatched step only."""
    steps = "".join(python_step(f"s{n}", following=f"[s{n + 1}]", more=f", retry: {n + 2}") for n in range(3))
    execution = Execution(parse(steps + python_step("s3")))
    for n in range(3):
        execution.complete(f"s{n}")
    attempts = [a.retry.max_attempts for a in execution.actions if isinstance(a, StartStep) and a.retry]
    assert attempts == [2, 3, 4]


def test_recorded_actions_make_advancing_again_do_nothing() -> None:
    execution = Execution(parse(DIAMOND))
    assert execution.go_on() == ()
    execution.complete("left")
    assert execution.go_on() == ()


def test_branches_run_side_by_side_and_the_join_starts_once_after_both() -> None:
    execution = Execution(parse(DIAMOND))
    assert execution.running == {"left", "right"}
    assert execution.complete("right") == ()
    assert started(execution.complete("left")) == ["join"]
    assert execution.complete("join", 5) == (PassRouter("end", None), CompleteExecution(5))


def test_join_waits_for_every_step_that_can_still_reach_it() -> None:
    steps = (
        "- {step: start, next: [long1, join]}\n"
        + python_step("long1", following="[long2]")
        + python_step("long2", following="[join]")
        + python_step("join")
    )
    execution = Execution(parse(steps))
    assert execution.running == {"long1"}
    assert started(execution.complete("long1")) == ["long2"]
    assert started(execution.complete("long2")) == ["join"]


def test_join_that_stands_before_its_branches_waits_for_them_too() -> None:
    steps = "- {step: start, next: [join, a]}\n" + python_step("join") + python_step("a", following="[join]")
    execution = Execution(parse(steps))
    assert execution.running == {"a"}
    assert started(execution.complete("a")) == ["join"]


def test_join_does_not_wait_for_a_branch_that_was_not_taken() -> None:
    steps = (
        "- step: start\n  next:\n  - left\n  - {step: right, when: '{{ workload.both }}'}\n  - {step: left, when: true}\n"
        + python_step("left", following="[join]")
        + python_step("right", following="[join]")
        + python_step("join")
    )
    execution = Execution(parse(steps), {"both": False})
    assert execution.running == {"left"}
    assert started(execution.complete("left")) == ["join"]


def test_join_starts_where_a_waiting_branch_ends_without_taking_it() -> None:
    steps = (
        "- {step: start, next: [left, right]}\n"
        + python_step("left", following="[join]")
        + python_step("right", following="[{step: join, when: '{{ result }}'}]")
        + python_step("join")
    )
    execution = Execution(parse(steps))
    execution.complete("left")
    assert started(execution.complete("right", False)) == ["join"]


def test_data_of_several_branches_is_merged_in_the_order_of_the_steps() -> None:
    steps = (
        "- {step: start, next: [second, first]}\n"
        + python_step("first", following="[{step: join, data: {a: 1, who: first}}]")
        + python_step("second", following="[{step: join, data: {b: 2, who: second}}]")
        + python_step("join")
    )
    for order in (("first", "second"), ("second", "first")):
        execution = Execution(parse(steps))
        for step in order:
            execution.complete(step)
        assert execution.data_of("join") == {"a": 1, "b": 2, "who": "second"}


def test_routers_are_passed_through_in_one_go() -> None:
    steps = "".join(f"- {{step: r{n}, next: r{n + 1}}}\n" for n in range(5)) + "- step: r5"
    execution = Execution(parse(steps))
    assert execution.actions == [*(PassRouter(f"r{n}", None) for n in range(6)), CompleteExecution(None)]


def test_router_waits_for_its_branches_and_passes_their_data_on() -> None:
    steps = (
        "- {step: start, next: [a, b]}\n"
        + python_step("a", following="[{step: gate, data: {a: '{{ result }}'}}]")
        + python_step("b", following="[{step: gate, data: {b: '{{ result }}'}}]")
        + "- {step: gate, type: route, next: [{step: last, data: {c: 3}}]}\n"
        + python_step("last")
    )
    execution = Execution(parse(steps))
    execution.complete("a", 1)
    execution.complete("b", 2)
    assert execution.data_of("last") == {"a": 1, "b": 2, "c": 3}


WHENS = """
- {step: choose, type: python, code: x, next: [
    {step: a, when: '{{ result.a }}'}, {step: b, when: '{{ result.b }}'}, {step: c}, {step: d}]}
- {step: a, type: python, code: x}
- {step: b, type: python, code: x}
- {step: c, type: python, code: x}
- {step: d, type: python, code: x}
"""


@pytest.mark.parametrize(
    ("result", "chosen"),
    [
        ({"a": True}, ["a"]),
        ({"a": 1, "b": "yes"}, ["a", "b"]),
        ({"b": [0]}, ["b"]),
        ({}, ["c", "d"]),
        ({"a": "no", "b": 0}, ["c", "d"]),
        ({"a": " False ", "b": "none"}, ["c", "d"]),
        (None, ["c", "d"]),
        (5, ["c", "d"]),
    ],
)
def test_all_items_that_hold_are_taken_else_the_unconditional_ones(result: object, chosen: list[str]) -> None:
    execution = Execution(parse(WHENS))
    assert started(execution.complete("choose", result)) == chosen


def test_branch_ends_where_no_item_holds() -> None:
    steps = python_step("a", following="[{step: b, when: '{{ result.go }}'}]") + python_step("b")
    execution = Execution(parse(steps))
    assert execution.complete("a", {"go": False}) == (CompleteExecution({"go": False}),)


def test_raising_when_ends_the_execution_at_the_step_it_leaves() -> None:
    """The reference took the branch: a text that could not be rendered is not empty, hence true."""
    steps = python_step("a", following="[{step: b, when: '{{ nosuch.x == 1 }}'}, c]") + python_step("b")
    execution = Execution(parse(steps + python_step("c")))
    [action] = execution.complete("a", 1)
    assert isinstance(action, FailExecution)
    assert (action.failed_step, action.failure.type) == ("a", "condition_error")
    assert "line 3, column" in action.failure.message
    assert "'nosuch' is not defined" in action.failure.message


def test_raising_when_lets_running_steps_end_first() -> None:
    steps = (
        "- {step: start, next: [a, slow]}\n"
        + python_step("a", following="[{step: b, when: '{{ result > 1 }}'}]")
        + python_step("b")
        + python_step("slow", following="[after]")
        + python_step("after")
    )
    execution = Execution(parse(steps))
    assert execution.complete("a", None) == ()
    [action] = execution.complete("slow")
    assert isinstance(action, FailExecution)
    assert action.failed_step == "a"


def test_dead_step_fails_the_execution_with_its_failure() -> None:
    execution = Execution(parse(python_step("a", following="[b]") + python_step("b")))
    assert execution.bury("a", "boom") == (FailExecution("a", Failure("boom", "RuntimeError")),)


def test_no_step_starts_once_one_is_dead_and_running_ones_end() -> None:
    execution = Execution(parse(DIAMOND))
    assert execution.bury("right") == ()
    [action] = execution.complete("left")
    assert isinstance(action, FailExecution)
    assert action.failed_step == "right"
    assert "join" not in execution.records


def test_failed_step_is_the_one_that_was_dead_first() -> None:
    execution = Execution(parse(DIAMOND))
    execution.bury("right", "first")
    [action] = execution.bury("left", "second")
    assert action == FailExecution("right", Failure("first", "RuntimeError"))


def test_step_whose_templates_cannot_be_rendered_is_refused_and_fails_the_execution() -> None:
    steps = (
        "- {step: start, next: a}\n- step: a\n  type: http\n  url: '{{ nosuch.url }}'\n  queue: q\n  retry: 3"
    )
    execution = Execution(parse(steps))
    refusal, failed = execution.actions[1:]
    assert isinstance(refusal, RefuseStep)
    assert (refusal.step, refusal.kind, refusal.queue, refusal.failure.type) == (
        "a",
        "http",
        "q",
        "template_error",
    )
    assert refusal.failure.message == "a.url (line 6, column 10): 'nosuch' is not defined"
    assert failed == FailExecution("a", refusal.failure)


def test_refused_step_lets_running_steps_end_first() -> None:
    steps = (
        "- {step: start, next: [a, b]}\n"
        + python_step("a")
        + python_step("b", more=", data: {x: '{{ no }}'}")
    )
    execution = Execution(parse(steps))
    assert isinstance(execution.last, RefuseStep)
    assert execution.running == {"a"}
    [action] = execution.complete("a")
    assert isinstance(action, FailExecution)
    assert action.failed_step == "b"


def test_transition_data_that_cannot_be_rendered_refuses_the_step_it_leads_to() -> None:
    execution = Execution(
        parse(python_step("a", following="[{step: b, data: {x: '{{ no }}'}}]") + python_step("b"))
    )
    refusal, failed = execution.complete("a")
    assert isinstance(refusal, RefuseStep)
    assert (refusal.step, refusal.failure.message) == (
        "b",
        "a.next[0].data.x (line 3, column 82): 'no' is not defined",
    )
    assert isinstance(failed, FailExecution)


@pytest.mark.parametrize(
    "steps",
    [
        "- {step: r, result: '{{ no }}'}",
        "- {step: start, next: [{step: r, data: {x: '{{ no }}'}}]}\n- step: r",
    ],
)
def test_router_that_cannot_be_rendered_fails_the_execution(steps: str) -> None:
    action = Execution(parse(steps)).last
    assert isinstance(action, FailExecution)
    assert (action.failed_step, action.failure.type) == ("r", "template_error")


def test_result_is_that_of_end() -> None:
    steps = (
        "- {step: start, next: [end, other]}\n"
        + python_step("other")
        + "- {step: end, type: python, code: x}\n"
    )
    execution = Execution(parse(steps))
    execution.complete("end", "of end")
    assert execution.complete("other", "later") == (CompleteExecution("of end"),)


def test_result_is_else_that_of_the_step_that_ended_last() -> None:
    steps = "- {step: start, next: [a, b]}\n" + python_step("a") + python_step("b")
    execution = Execution(parse(steps))
    execution.complete("b", "of b")
    assert execution.complete("a", "of a") == (CompleteExecution("of a"),)


def test_null_is_a_result_too() -> None:
    execution = Execution(parse(python_step("a", following="[b]") + python_step("b")))
    execution.complete("a", 1)
    assert execution.complete("b", None) == (CompleteExecution(None),)


@pytest.mark.parametrize(
    "end",
    [
        "- {step: end, result: {total: '{{ a.n + 1 }}', whole: '{{ results.a }}'}}",
        "- {step: end, type: end, result: {total: '{{ a.n + 1 }}', whole: '{{ results.a }}'}}",
    ],
)
def test_result_mapping_of_end_is_rendered(end: str) -> None:
    execution = Execution(parse(python_step("a", following="[end]") + end))
    execution.complete("a", {"n": 1})
    assert execution.last == CompleteExecution({"total": 2, "whole": {"n": 1}})


def test_result_mapping_of_a_step_with_a_type_sees_its_own_result() -> None:
    execution = Execution(parse(python_step("a", more=", result: {n: '{{ result.n }}', also: '{{ a.n }}'}")))
    assert execution.complete("a", {"n": 7}) == (CompleteExecution({"n": 7, "also": 7}),)


def test_data_passed_to_end_is_the_result() -> None:
    execution = Execution(
        parse(python_step("a", following="[{step: end, data: {n: '{{ result }}'}}]") + "- step: end")
    )
    execution.complete("a", 7)
    assert execution.last == CompleteExecution({"n": 7})


def test_result_mapping_that_cannot_be_rendered_fails_the_execution() -> None:
    execution = Execution(parse(python_step("a", more=", result: '{{ nosuch }}'")))
    [action] = execution.complete("a", 1)
    assert isinstance(action, FailExecution)
    assert (action.failed_step, action.failure.type) == ("a", "template_error")


def test_routers_without_a_result_do_not_hide_that_of_the_last_step() -> None:
    execution = Execution(parse(python_step("a", following="[end]") + "- step: end"))
    execution.complete("a", "kept")
    assert execution.last == CompleteExecution("kept")


def test_failed_attempts_do_not_concern_the_execution() -> None:
    """A step between two attempts is a started step without an outcome, whatever its job went through."""
    playbook = parse(python_step("a", following="[b]") + python_step("b"))
    waiting = Progress(1, {}, {"a": StepRecord("a", job_id=7)})
    assert advance(playbook, waiting) == ()


def test_order_in_which_the_database_lists_steps_does_not_matter() -> None:
    playbook = parse(DIAMOND)
    execution = Execution(playbook)
    execution.complete("left", 1)
    execution.bury("right")
    backwards = dict(reversed(execution.records.items()))
    assert advance(playbook, Progress(42, {}, backwards)) == advance(
        playbook, Progress(42, {}, execution.records)
    )
