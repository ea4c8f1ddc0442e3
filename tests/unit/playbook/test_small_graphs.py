"""Every small workflow ends, and none of its steps starts twice: all graphs of four steps, and random larger ones."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.playbook.document import PlaybookInvalid
from broker.playbook.model import Playbook
from broker.playbook.progress import CompleteExecution, FailExecution, StartStep
from tests.unit.playbook.playbooks import Execution, parse

Choose = Callable[[set[str]], tuple[str, bool]]
"""Which of the running steps ends now, and whether it is done."""


def make(
    edges: dict[int, list[tuple[int, str]]], routers: set[int], order: Sequence[int] = ()
) -> Playbook | None:
    """Steps s0, s1, … with these edges and their conditions, s0 first; None where one of them is not reached."""
    lines = []
    for step, following in edges.items():
        fields = "" if step in routers else ", type: python, code: x"
        items = ", ".join(f"{{step: s{target}{when}}}" for target, when in following)
        lines.append(f"- {{step: s{step}{fields}, next: [{items}]}}")
    rest = [lines[step] for step in order] or lines[1:]
    try:
        return parse("\n".join([lines[0], *rest]))
    except PlaybookInvalid:
        return None


def play(playbook: Playbook, choose: Choose) -> Execution:
    """Run an execution to its end. `Execution` fails where a step is started a second time."""
    execution = Execution(playbook)
    for _ in playbook.steps:
        if not execution.running:
            break
        step, is_done = choose(execution.running)
        for earlier in ancestors(playbook, step):
            assert earlier not in execution.running, f"{step} started before {earlier} had ended"
        if is_done:
            execution.complete(step, {"go": step in ("s0", "s2")})
        else:
            execution.bury(step)
    assert isinstance(execution.last, CompleteExecution | FailExecution)
    assert sum(isinstance(action, CompleteExecution | FailExecution) for action in execution.actions) == 1
    assert not execution.running
    return execution


def ancestors(playbook: Playbook, name: str) -> set[str]:
    """The steps before a step, found the slow way."""
    before: set[str] = set()
    size = -1
    while size != len(before):
        size = len(before)
        before |= {
            step.name
            for step in playbook.steps
            if any(item.target in before | {name} for item in step.transitions)
        }
    return before


def four_step_graphs() -> list[dict[int, list[tuple[int, str]]]]:
    """Every graph without cycles of four steps whose edges lead forward."""
    pairs = list(itertools.combinations(range(4), 2))
    return [
        {
            step: [(b, "") for (a, b), kept in zip(pairs, chosen, strict=True) if kept and a == step]
            for step in range(4)
        }
        for chosen in itertools.product((False, True), repeat=len(pairs))
    ]


@pytest.mark.parametrize("routers", [set(), {0}, {1, 2}, {0, 1, 2, 3}], ids=str)
def test_every_graph_of_four_steps_runs_each_step_once_in_every_order(routers: set[int]) -> None:
    played = 0
    for edges in four_step_graphs():
        playbook = make(edges, routers)
        if playbook is None:
            continue
        for order in itertools.permutations(("s0", "s1", "s2", "s3")):
            execution = play(playbook, lambda running, order=order: (min(running, key=order.index), True))  # type: ignore[misc]
            assert set(execution.records) == {"s0", "s1", "s2", "s3"}
            assert isinstance(execution.last, CompleteExecution)
        played += 1
    assert played == 1 * 3 * 7  # s1 follows s0, s2 one or both of two, s3 any of three


@pytest.mark.parametrize("dead", ["s0", "s1", "s2", "s3"])
def test_every_graph_of_four_steps_fails_at_its_dead_step_and_starts_nothing_after_it(dead: str) -> None:
    for edges in four_step_graphs():
        playbook = make(edges, set())
        if playbook is None:
            continue
        execution = play(playbook, lambda running: (max(running), max(running) != dead))
        assert isinstance(execution.last, FailExecution)
        assert execution.last.failed_step == dead
        position = next(i for i, action in enumerate(execution.actions) if isinstance(action, FailExecution))
        later = {step.name for step in playbook.steps if dead in ancestors(playbook, step.name)}
        started = {action.step for action in execution.actions[:position] if isinstance(action, StartStep)}
        assert not later & started


@st.composite
def larger_graphs(draw: st.DrawFn) -> Playbook | None:
    """A workflow of up to nine steps, which stand in any order in the text."""
    size = draw(st.integers(1, 9))
    whens = st.sampled_from(
        ["", "", ", when: '{{ result.go }}'", ", when: '{{ not result.go }}'", ", when: '{{ result < 1 }}'"]
    )
    edges: dict[int, list[tuple[int, str]]] = {step: [] for step in range(size)}
    for step in range(1, size):
        for source in draw(st.sets(st.integers(0, step - 1), min_size=1, max_size=3)):
            edges[source].append((step, draw(whens)))
    routers = draw(st.sets(st.integers(0, size - 1)))
    return make(edges, routers, draw(st.permutations(range(1, size))))


@settings(max_examples=150, deadline=None)
@given(playbook=larger_graphs(), data=st.data())
def test_every_execution_ends_and_starts_no_step_twice(
    playbook: Playbook | None, data: st.DataObject
) -> None:
    assert playbook is not None
    play(
        playbook,
        lambda running: (data.draw(st.sampled_from(sorted(running))), data.draw(st.integers(0, 9)) > 0),
    )
