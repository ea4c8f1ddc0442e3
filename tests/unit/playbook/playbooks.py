"""What the tests of playbooks share: short texts, faults as text, and an execution that is played by hand."""

from dataclasses import replace
from textwrap import dedent, indent

import pytest

from broker.playbook.advance import advance
from broker.playbook.model import Playbook
from broker.playbook.parse import PlaybookInvalid, parse_playbook
from broker.playbook.progress import (
    UNREAD,
    Action,
    Outcome,
    PassRouter,
    Progress,
    RefuseStep,
    StartStep,
    StepRecord,
    UnreadResults,
)
from broker.policy.facts import Failure


def workflow(steps: str, rest: str = "") -> str:
    """The text of a playbook with these steps, which begin in line 3."""
    return f"name: test\nworkflow:\n{indent(dedent(steps).strip(), '  ')}\n{dedent(rest)}"


def parse(steps: str, rest: str = "") -> Playbook:
    return parse_playbook(workflow(steps, rest))


def faults_of(text: str) -> list[str]:
    """The faults of a text, each as "line L, column C: path: message"."""
    with pytest.raises(PlaybookInvalid) as refused:
        parse_playbook(text)
    return [str(fault) for fault in refused.value.faults]


def faults_in(steps: str, rest: str = "") -> list[str]:
    return faults_of(workflow(steps, rest))


def python_step(name: str, *, following: str = "[]", more: str = "") -> str:
    """One python step on a line of its own."""
    return f"- {{step: {name}, type: python, code: 'def main(): pass', next: {following}{more}}}\n"


class Execution:
    """An execution whose jobs are ended by hand; every answer of `advance` is recorded as the broker would."""

    def __init__(self, playbook: Playbook, workload: dict[str, object] | None = None) -> None:
        self.playbook = playbook
        self.workload = {**playbook.workload, **(workload or {})}
        self.records: dict[str, StepRecord] = {}
        self.actions: list[Action] = []
        self.choices: dict[str, tuple[int, ...]] = {}
        self.go_on()

    @property
    def running(self) -> set[str]:
        return {name for name, record in self.records.items() if record.outcome is None}

    @property
    def last(self) -> Action:
        return self.actions[-1]

    def input_of(self, step: str) -> dict[str, object]:
        return next(a.input for a in self.actions if isinstance(a, StartStep) and a.step == step)

    def data_of(self, step: str) -> object:
        return self.input_of(step)["data"]

    def go_on(self) -> tuple[Action, ...]:
        actions = advance(self.playbook, Progress(42, self.workload, dict(self.records)))
        assert self._advance_reading_what_is_asked_for() == actions
        for action in actions:
            self.actions.append(action)
            match action:
                case StartStep():
                    assert action.step not in self.records
                    self.records[action.step] = StepRecord(action.step, job_id=100 + len(self.records))
                case PassRouter():
                    assert action.step not in self.records
                    self._end(StepRecord(action.step, 0, Outcome.DONE, action.result))
                case RefuseStep():
                    assert action.step not in self.records
                    self._end(StepRecord(action.step, 99, Outcome.DEAD, None, action.failure))
        return actions

    def _advance_reading_what_is_asked_for(self) -> tuple[Action, ...]:
        """The same without any result at first: whatever is asked for is read; what was chosen is remembered."""
        self.results_read: set[str] = set()
        choices = dict(self.choices)
        while True:
            records = {
                name: record
                if record.result is None or name in self.results_read
                else replace(record, result=UNREAD)
                for name, record in self.records.items()
            }
            try:
                actions = advance(self.playbook, Progress(42, self.workload, records), choices)
            except UnreadResults as unread:
                asked = unread.steps
            else:
                self.choices = choices
                return actions
            assert asked.isdisjoint(self.results_read)
            self.results_read |= asked

    def complete(self, step: str, result: object = None) -> tuple[Action, ...]:
        assert self.records[step].outcome is None
        self._end(StepRecord(step, self.records[step].job_id, Outcome.DONE, result))
        return self.go_on()

    def bury(self, step: str, message: str = "boom") -> tuple[Action, ...]:
        assert self.records[step].outcome is None
        self._end(
            StepRecord(step, self.records[step].job_id, Outcome.DEAD, None, Failure(message, "RuntimeError"))
        )
        return self.go_on()

    def _end(self, record: StepRecord) -> None:
        order = 1 + max((known.ended_order for known in self.records.values()), default=0)
        self.records[record.step] = StepRecord(
            record.step, record.job_id, record.outcome, record.result, record.failure, order
        )
