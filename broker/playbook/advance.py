"""What an execution does next, as a pure function of its playbook and of what has ended so far.

Everything is decided anew from the records each time, and gives the same answer each time: conditions see only the
results of steps that had ended before (see `context`). So nothing but the records needs to be stored. Of those only the
results that templates ask for need to be read: which ones, UnreadResults says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.playbook.context import Names, names_after, names_before
from broker.playbook.document import Located
from broker.playbook.graph import members
from broker.playbook.model import DEFAULT_ATTEMPT_TIMEOUT, Playbook, Step, Task, Transition
from broker.playbook.needs import Needs
from broker.playbook.progress import (
    Action,
    CompleteExecution,
    FailExecution,
    Outcome,
    PassRouter,
    Progress,
    RefuseStep,
    StartStep,
    StepRecord,
)
from broker.playbook.rendering import NotRendered, Renderer, place_of, refuse_giant, render_input, write_value
from broker.policy.expression import ExpressionError
from broker.policy.facts import CONDITION_ERROR, Failure

_UNKNOWN_FAILURE = Failure(message="the step is dead", type="")


def advance(
    playbook: Playbook,
    progress: Progress,
    choices: dict[str, tuple[int, ...]] | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Action, ...]:
    """Everything that is to be done now, in order; empty while the execution only waits for its jobs.

    Routers are passed through until nothing follows. With the actions recorded, advancing again gives nothing. The
    last action ends the execution if no started step is left. Must not be asked of an execution that has ended.

    `choices` remembers which items of `next` each step has taken, by number: what stands there is not evaluated again,
    what is found is added. `check` is called every few milliseconds, and may raise to stop. Raises UnreadResults.
    """
    return _Advance(playbook, progress, {} if choices is None else choices, check).run()


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why no further step starts: a dead step, or a transition or a router that could not be evaluated."""

    ended_order: int
    step: str
    failure: Failure


class _Advance:
    """One call of `advance`: the records, to which it adds what it decides."""

    def __init__(
        self,
        playbook: Playbook,
        progress: Progress,
        choices: dict[str, tuple[int, ...]],
        check: Callable[[], None],
    ) -> None:
        self._playbook = playbook
        self._progress = progress
        self._choices = choices
        self._check = check
        self._numbers = {step.name: number for number, step in enumerate(playbook.steps)}
        self._records = dict(progress.started)
        self._needs = Needs(playbook, self._records)
        self._chosen: dict[int, tuple[Transition, ...]] = {}
        self._failed: list[_Failed] = []
        self._actions: list[Action] = []
        self._names: dict[int, Names] = {}
        self._last_order = max((record.ended_order for record in self._records.values()), default=0)
        for record in progress.started.values():
            self._judge(record)
        self._needs.ask()

    def run(self) -> tuple[Action, ...]:
        """Start steps until none is ready, then end the execution if it is over."""
        while not self._failed and (step := self._next_ready()) is not None:
            self._start(step)
            self._check()
        self._needs.ask()
        if all(record.outcome is not None for record in self._records.values()):
            self._end()
        return tuple(self._actions)

    def _judge(self, record: StepRecord) -> None:
        """Take up what a step's end means: a failure, or the transitions that it chooses."""
        step = self._numbers[record.step]
        if record.outcome == Outcome.DEAD:
            failure = record.failure or _UNKNOWN_FAILURE
            self._failed.append(_Failed(record.ended_order, record.step, failure))
        elif record.outcome == Outcome.DONE:
            self._chosen[step] = self._choose(step, record)

    def _choose(self, number: int, record: StepRecord) -> tuple[Transition, ...]:
        """All items of `next` whose `when` holds; if none does, those without one."""
        transitions = self._playbook.steps[number].transitions
        if record.step not in self._choices:
            chosen = self._evaluate(number, record)
            if chosen is None:
                return ()
            self._choices[record.step] = chosen
        return tuple(transitions[index] for index in self._choices[record.step])

    def _evaluate(self, number: int, record: StepRecord) -> tuple[int, ...] | None:
        """The numbers of those items; None where that cannot be said: a result is unread, or a `when` raises."""
        transitions = self._playbook.steps[number].transitions
        holding: list[int] = []
        for index, item in enumerate(transitions):
            if item.when is None:
                continue
            at = Located(f"{item.path}.when", item.at.node.entries["when"])
            self._check()
            try:
                if not self._needs.are_met(at, self._needs.of_condition(number, item.when)):
                    return None
                if item.when.evaluate(self._names_after(number).for_text(item.when.text)):
                    holding.append(index)
            except ExpressionError as error:
                problem = f"{place_of(at)}: {error.message}"
            except NotRendered as error:
                problem = str(error)
            else:
                continue
            self._failed.append(_Failed(record.ended_order, record.step, Failure(problem, CONDITION_ERROR)))
            return None
        return tuple(holding) or tuple(i for i, item in enumerate(transitions) if item.when is None)

    def _next_ready(self) -> int | None:
        """The first step that was taken, has not started, and that no unfinished step can still reach."""
        taken = 0 if self._records else 1 << self._playbook.graph.initial
        for chosen in self._chosen.values():
            for item in chosen:
                taken |= 1 << self._numbers[item.target]
        unfinished = 0
        for record in self._records.values():
            taken &= ~(1 << self._numbers[record.step])
            if record.outcome is None:
                unfinished |= 1 << self._numbers[record.step]
        reachable = 0
        for step in members(unfinished | taken):
            reachable |= self._playbook.graph.below[step]
        return next(members(taken & ~reachable), None)

    def _start(self, number: int) -> None:
        step = self._playbook.steps[number]
        if step.task is None:
            self._pass(number, step)
        else:
            self._enqueue(number, step, step.task)

    def _enqueue(self, number: int, step: Step, task: Task) -> None:
        timeout = task.attempt_timeout or DEFAULT_ATTEMPT_TIMEOUT
        job = (task.queue, task.priority, task.retry, timeout, task.dependency)
        try:
            if not self._needs.are_met(step.at, self._needs.to_start(number, self._sources(number))):
                self._records[step.name] = StepRecord(step.name)
                return
            names, passed = self._names_before(number), self._passed(number)
            job_input = render_input(step, task, names, passed, self._check)
        except NotRendered as error:
            self._actions.append(RefuseStep(step.name, task.kind, *job, failure=error.failure))
            self._record(StepRecord(step.name, 0, Outcome.DEAD, None, error.failure, self._next_order()))
        else:
            self._actions.append(StartStep(step.name, task.kind, job_input, *job))
            self._records[step.name] = StepRecord(step.name)

    def _pass(self, number: int, step: Step) -> None:
        """A router ends as it starts, with what was passed to it as its result, or what its `result` makes of that."""
        try:
            self._needs.are_met(step.at, self._needs.to_start(number, self._sources(number)))
            self._needs.ask()
            passed = self._passed(number)
            result: object = passed or None
            if step.result is not None:
                names = names_after(self._names_before(number), StepRecord(step.name, result=result))
                result = Renderer(names, self._check).render(step.result)
            refuse_giant(step.at, result)
        except NotRendered as error:
            orders = [self._records[source.name].ended_order for source, _ in self._sources(number)]
            self._failed.append(_Failed(max(orders, default=0), step.name, error.failure))
        else:
            self._actions.append(PassRouter(step.name, result))
            self._record(StepRecord(step.name, 0, Outcome.DONE, result, None, self._next_order()))

    def _is_router(self, record: StepRecord) -> bool:
        return self._playbook.steps[self._numbers[record.step]].is_router

    def _record(self, record: StepRecord) -> None:
        self._records[record.step] = record
        self._judge(record)
        self._needs.ask()

    def _sources(self, target: int) -> Iterator[tuple[Step, Transition]]:
        """The transitions that were taken to a step, in the order of the steps they leave."""
        name = self._playbook.steps[target].name
        for source in sorted(self._chosen):
            for item in self._chosen[source]:
                if item.target == name:
                    yield self._playbook.steps[source], item

    def _passed(self, target: int) -> dict[str, object]:
        """The data of all transitions to a step, merged: later steps win. What a router got it passes on."""
        passed: dict[str, object] = {}
        for source, item in self._sources(target):
            result = self._records[source.name].result
            if source.is_router and isinstance(result, dict):
                passed |= result
            if item.data:
                names = self._names_after(self._numbers[source.name])
                passed |= Renderer(names, self._check).render_mappings(item.data)
        return passed

    def _names_before(self, step: int) -> Names:
        progress = self._progress
        return names_before(self._playbook, step, progress.execution_id, progress.workload, self._records)

    def _names_after(self, step: int) -> Names:
        if step not in self._names:
            record = self._records[self._playbook.steps[step].name]
            self._names[step] = names_after(self._names_before(step), record)
        return self._names[step]

    def _next_order(self) -> int:
        self._last_order += 1
        return self._last_order

    def _end(self) -> None:
        """No started step is left: the first failure, or the result."""
        if not self._failed:
            self._complete()
        if self._failed:
            first = min(self._failed, key=lambda failed: failed.ended_order)
            self._actions.append(FailExecution(first.step, first.failure))

    def _complete(self) -> None:
        """The result is that of `end`, else that of the step that ended last; a router without one does not count."""
        ended = sorted(self._records.values(), key=lambda record: record.ended_order)
        bearing = [record for record in ended if record.result is not None or not self._is_router(record)]
        named_end = [record for record in bearing if record.step == "end"]
        record = (named_end or bearing or ended)[-1]
        number = self._numbers[record.step]
        step = self._playbook.steps[number]
        made = step.result if not step.is_router else None
        try:
            self._needs.are_met(step.at, self._needs.to_complete(number, made))
            self._needs.ask()
            result = record.result
            if made is not None:
                result = Renderer(self._names_after(number), self._check).render(made)
                refuse_giant(made, result)
            else:
                write_value(step.at, result)
        except NotRendered as error:
            self._failed.append(_Failed(record.ended_order, step.name, error.failure))
        else:
            self._actions.append(CompleteExecution(result))
