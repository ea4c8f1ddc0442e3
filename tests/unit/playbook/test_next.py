"""`next`: its forms, and the graphs that are refused."""

import pytest

from broker.playbook.graph import find_cycles, find_unreachable, make_graph, members
from tests.unit.playbook.playbooks import Execution, faults_in, parse, python_step


@pytest.mark.parametrize(
    ("form", "targets"),
    [
        ("b", ["b"]),
        ("[b]", ["b"]),
        ("[b, c]", ["b", "c"]),
        ("{step: b}", ["b"]),
        ("[{step: b}, c]", ["b", "c"]),
        ("[{step: b, when: '{{ true }}'}, {step: c, data: {x: 1}}]", ["b", "c"]),
        ("[]", []),
        ("null", []),
    ],
)
def test_next_takes_names_items_and_lists_of_both(form: str, targets: list[str]) -> None:
    others = "".join(f"- {{step: {name}}}\n" for name in targets)
    playbook = parse(f"- {{step: a, next: {form}}}\n{others}")
    assert [item.target for item in playbook.steps[0].transitions] == targets


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            "[{when: '{{ true }}', then: [b]}]",
            "next[0].then: `then` is not supported: write one item for each step",
        ),
        ("[{else: [b]}]", "next[0].else: `else` is not supported: write one item for each step"),
        ("[{when: '{{ true }}'}]", "next[0]: an item of `next` needs `step`"),
        ("[5]", "next[0]: must be the name of a step or {step, when, data}, not the number 5"),
        ("5", "next: must be the name of a step or {step, when, data}, not the number 5"),
        ("[[b]]", "next[0]: must be the name of a step or {step, when, data}, not a list"),
        ("[{step: b, wen: true}]", "next[0].wen: unknown key 'wen': did you mean 'when'?"),
        ("[{step: b, when: x > 1}]", "next[0].when: a condition is true, false or exactly one {{ … }}"),
        (
            "[{step: b, when: 1}]",
            "next[0].when: must be true, false or exactly one {{ … }}, not the number 1",
        ),
        ("[{step: b, when: '{{ f() }}'}]", "next[0].when: calls are not allowed"),
        ("[{step: b, data: [1]}]", "next[0].data: must be a mapping, not a list"),
        ("[{step: b, with: {x: '{{ 1 ** 2 }}'}}]", "next[0].with.x: powers (**) are not allowed"),
        ("[b, c]", "next[1]: there is no step 'c': "),
        ("[{step: bb}, b]", "next[0].step: there is no step 'bb': did you mean 'b'?"),
    ],
)
def test_fault_of_next_is_refused_by_name(form: str, message: str) -> None:
    [fault] = faults_in(f"- {{step: a, next: {form}}}\n- {{step: end}}\n- {{step: b}}\n")[:1]
    assert fault.split(": ", 1)[1].startswith(f"workflow[0].{message}")


def test_way_back_is_refused_with_the_whole_way() -> None:
    steps = (
        python_step("a", following="[b]")
        + python_step("b", following="[c]")
        + python_step("c", following="[a, d]")
    )
    assert faults_in(steps + python_step("d")) == [
        "line 5, column 62: workflow[2].next[0]: a step runs once, so no way may lead back: a -> b -> c -> a"
    ]


def test_step_that_follows_itself_is_refused() -> None:
    assert faults_in("- {step: a, next: a}") == [
        "line 3, column 21: workflow[0].next: a step runs once, so no way may lead back: a -> a"
    ]


def test_step_that_nothing_leads_to_is_refused() -> None:
    """A workflow without any `next` would run its first step and call itself complete."""
    assert faults_in(python_step("a") + python_step("b")) == [
        "line 4, column 5: workflow[1]: nothing leads from 'a' to this step"
    ]


def test_bare_end_that_nothing_leads_to_is_let_through() -> None:
    assert [step.name for step in parse(python_step("a") + "- step: end").steps] == ["a", "end"]


def test_two_steps_of_one_name_are_refused() -> None:
    assert faults_in(python_step("a") + python_step("a")) == [
        "line 4, column 5: workflow[1]: there are two steps named 'a': the first is in line 3"
    ]


def test_execution_starts_with_start_else_with_the_first_step() -> None:
    assert parse(python_step("a") + "- {step: start, next: a}").graph.initial == 1
    assert parse("- {step: a, next: b}\n- {step: b}").graph.initial == 0


def test_result_of_a_step_that_goes_on_is_refused() -> None:
    [fault] = faults_in("- {step: a, next: b, result: 1}\n- {step: b}")
    assert "`result` is only for a step without `next`" in fault


def test_graph_knows_what_is_below_and_above() -> None:
    graph = make_graph(0, [[1, 2], [3], [3], []])
    assert [list(members(mask)) for mask in graph.below] == [[1, 2, 3], [3], [3], []]
    assert [list(members(mask)) for mask in graph.above] == [[], [0], [0], [0, 1, 2]]


def test_every_transition_back_makes_one_cycle() -> None:
    assert find_cycles([[1], [2, 0], [1, 2]]) == [(1, 2), (2,), (0, 1)]
    assert find_cycles([[1, 2], [3], [3], []]) == []


def test_deep_graph_does_not_overflow_the_stack() -> None:
    targets = [[number + 1] for number in range(999)] + [[]]
    assert find_cycles(targets) == []
    assert find_unreachable(0, targets) == []
    assert len(list(members(make_graph(0, targets).below[0]))) == 999


def test_workflow_at_its_limit_is_read_and_advanced() -> None:
    following = [f"[s{n + 1}]" for n in range(999)] + ["[]"]
    steps = "".join(python_step(f"s{n}", following=target) for n, target in enumerate(following))
    execution = Execution(parse(steps))
    for n in range(20):
        execution.complete(f"s{n}")
    assert execution.running == {"s20"}
