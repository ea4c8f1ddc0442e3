"""Where an execution stands, from the rows that the database has of it to the records that the playbook is asked with.

Decodes JSON, which takes its time with large results: to be used in a thread. Must not read: what is missing it names.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from broker.playbook.progress import UNREAD, Outcome, Progress, StepRecord
from broker.policy.decision import Failure
from broker.store.events import EventKind
from broker.store.executions import LockedExecution, StepEnd


class Standing:
    """One execution: the steps that it has started, as (step, job_id), and how those that are over have ended."""

    def __init__(
        self, execution: LockedExecution, started: Sequence[tuple[str, int]], ends: Iterable[StepEnd]
    ) -> None:
        self.execution = execution
        self._started = started
        self._ends: dict[str, dict[int, StepEnd]] = {}
        self._results: dict[str, object] = {}
        for end in ends:
            self._ends.setdefault(end.step, {})[end.kind] = end

    @property
    def is_waiting(self) -> bool:
        """Whether a step that was started has not ended."""
        return any(_end_of_step(self._ends.get(step, {})) is None for step, _ in self._started)

    @property
    def last_ended(self) -> str | None:
        """The step that ended last."""
        ended = {step: end.event_id for step, ends in self._ends.items() if (end := _end_of_step(ends))}
        return max(ended, key=ended.__getitem__, default=None)

    def events_with_results(self, steps: Iterable[str]) -> dict[int, str]:
        """The events that hold the results of these steps: event_id to step."""
        jobs = dict(self._started)
        return {_holder(jobs[step], self._ends[step]).event_id: step for step in steps}

    def add_results(self, details: Mapping[str, str]) -> None:
        """Takes in the details of those events, by step."""
        jobs = dict(self._started)
        for step, detail in details.items():
            self._results[step] = _result(jobs[step], detail)

    def progress(self) -> Progress:
        """All of it, as `advance` wants it; results that are neither short nor added are UNREAD."""
        return Progress(
            self.execution.execution_id,
            json.loads(self.execution.workload),
            {step: self._record(step, job_id) for step, job_id in self._started},
        )

    def _record(self, step: str, job_id: int) -> StepRecord:
        ends = self._ends.get(step, {})
        end = _end_of_step(ends)
        if end is None:
            return StepRecord(step, job_id)
        if end.kind == EventKind.STEP_FAILED:
            return StepRecord(step, job_id, Outcome.DEAD, None, _failure(end), end.event_id)
        holder = _holder(job_id, ends)
        if step not in self._results and holder.detail is not None:
            self._results[step] = _result(job_id, holder.detail)
        result = self._results.get(step, UNREAD)
        return StepRecord(step, job_id, Outcome.DONE, result, None, end.event_id, holder.detail_bytes or 0)


def _end_of_step(ends: Mapping[int, StepEnd]) -> StepEnd | None:
    return ends.get(EventKind.STEP_FAILED) or ends.get(EventKind.STEP_COMPLETED)


def _holder(job_id: int, ends: Mapping[int, StepEnd]) -> StepEnd:
    """The event that holds the result of a step: of a router its own, else that of its job."""
    return ends[EventKind.STEP_COMPLETED if job_id == 0 else EventKind.ACTION_COMPLETED]


def _result(job_id: int, detail: str) -> object:
    """A router's event holds an object with its result, a job's the result itself."""
    value = json.loads(detail)
    return value["result"] if job_id == 0 else value


def _failure(end: StepEnd) -> Failure:
    members = json.loads(end.detail or "{}")
    return Failure(
        message=members.get("error", ""),
        type=members.get("error_type", ""),
        status_code=members.get("status_code"),
    )
