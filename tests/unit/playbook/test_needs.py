"""Which results are read before an execution goes on: those that its templates ask for, each condition's once."""

import pytest

from broker.playbook.advance import advance
from broker.playbook.needs import RESULTS_LIMIT
from broker.playbook.progress import FailExecution, Outcome, Progress, RefuseStep, StepRecord
from tests.unit.playbook.playbooks import Execution, parse, python_step

CHAIN = python_step("a", following="[b]") + python_step("b", following="[c]")


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ("plain text", set()),
        ("{{ workload.a }}", set()),
        ("{{ a.b }}", {"a"}),
        ("{{ a.b if a else b[0] }}", {"a", "b"}),
        ("{{ results.b }}", {"b"}),
        ("{{ results['a'].b }}", {"a"}),
        ("{{ results | length }}", {"a", "b"}),
        ("{{ results[workload.a] }}", {"a", "b"}),
    ],
)
def test_step_reads_the_results_that_its_templates_name(asked: str, read: set[str]) -> None:
    execution = Execution(parse(CHAIN + python_step("c", more=f', data: {{x: "{asked}"}}')), {"a": "b"})
    execution.complete("a", {"b": 1})

    execution.complete("b", [2])

    assert execution.results_read == read


def test_code_is_no_template_and_asks_for_nothing() -> None:
    execution = Execution(
        parse(CHAIN + "- {step: c, type: python, code: \"def main(): return '{{ a }}'\", next: []}\n")
    )
    execution.complete("a", 1)

    execution.complete("b", 2)

    assert execution.results_read == set()


def test_what_a_transition_passes_is_read_when_its_target_starts() -> None:
    passing = python_step("a", following="[{step: b, data: {x: '{{ result.x }}'}}]") + python_step("b")
    execution = Execution(parse(passing))

    execution.complete("a", {"x": 1})

    assert execution.results_read == {"a"}


def test_condition_is_asked_once_and_its_result_not_read_again() -> None:
    execution = Execution(
        parse(
            python_step("a", following="[{step: b, when: '{{ result.go }}'}]")
            + python_step("b", following="[c]")
            + python_step("c")
        )
    )

    execution.complete("a", {"go": True})
    assert execution.results_read == {"a"}
    execution.complete("b", {"more": True})

    assert execution.results_read == set()


def done(step: str, order: int, result_bytes: int) -> StepRecord:
    return StepRecord(step, 1, Outcome.DONE, "read", None, order, result_bytes)


def test_step_that_asks_for_too_much_is_refused() -> None:
    book = parse(CHAIN + python_step("c", more=", data: {x: '{{ a + b }}'}"))
    half = RESULTS_LIMIT // 2 + 1

    refused, failed = advance(
        book, Progress(1, {}, {name: done(name, at, half) for at, name in enumerate("ab", 1)})
    )

    assert isinstance(refused, RefuseStep)
    assert isinstance(failed, FailExecution)
    assert refused.failure.message == (
        "c (line 5, column 5): the results that it asks for have more than 33554432 bytes together"
    )


def test_condition_that_asks_for_too_much_fails_the_execution() -> None:
    book = parse(python_step("a", following="[{step: b, when: '{{ a }}'}]") + python_step("b"))

    (failed,) = advance(book, Progress(1, {}, {"a": done("a", 1, RESULTS_LIMIT + 1)}))

    assert isinstance(failed, FailExecution)
    assert failed.failure.type == "condition_error"
    assert failed.failure.message.startswith("a.next[0].when (line 3, column 78): the results ")


def test_working_out_what_follows_can_be_stopped_between_any_two_templates() -> None:
    templates = ", ".join(f"x{n}: '{{{{ workload }}}}'" for n in range(100))
    book = parse(python_step("a", more=f", data: {{{templates}}}"))
    checks = iter(range(50))

    with pytest.raises(StopIteration):
        advance(book, Progress(1, {}, {}), check=lambda: next(checks))  # type: ignore[arg-type]
