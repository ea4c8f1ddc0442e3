"""What an execution has done so far, and what it does next: the words in which advancing is asked and answered.

All of Progress can be read from the database, and an Action says all that must be written to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias, final

from broker.policy.facts import Failure
from broker.policy.retry_policy import RetryPolicy


class Outcome(StrEnum):
    """How a step ended."""

    DONE = "done"
    DEAD = "dead"


@final
class Unread:
    """Stands for a result that was not read from the database: results may be many and large, few are asked for."""


UNREAD: Final = Unread()


class UnreadResults(Exception):
    """What follows depends on results that were not read: advance again with those of `steps`."""

    def __init__(self, steps: frozenset[str]) -> None:
        super().__init__(f"the results of {', '.join(sorted(steps))} are needed")
        self.steps = steps


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step that was started: by StartStep, PassRouter or RefuseStep.

    `job_id` is 0 for a router, `outcome` None while the job waits or runs, `result` the JSON value that it completed
    with, or UNREAD, `failure` why it is dead. `ended_order` is any number that rises with the order in which steps
    ended, routers and refused steps included; 0 while `outcome` is None. `result_bytes` is the result's length as JSON.
    """

    step: str
    job_id: int = 0
    outcome: Outcome | None = None
    result: object = None
    failure: Failure | None = None
    ended_order: int = 0
    result_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """An execution as the database has it: its workload (the playbook's, overlaid with the start's) and started steps."""

    execution_id: int
    workload: Mapping[str, object]
    started: Mapping[str, StepRecord]


@dataclass(frozen=True, slots=True)
class StartStep:
    """Enqueue a job for the step. `input` is rendered, a JSON object of at most 1 MiB."""

    step: str
    kind: str
    input: dict[str, object]
    queue: str
    priority: int
    retry: RetryPolicy | None
    attempt_timeout: timedelta
    dependency: str | None


@dataclass(frozen=True, slots=True)
class PassRouter:
    """Record the step as started and done at once, without a job; `result` is the data that it passes on, or None."""

    step: str
    result: object


@dataclass(frozen=True, slots=True)
class RefuseStep:
    """Write a job for the step that is dead from the start: its templates could not be rendered.

    It has no input; all else is as in StartStep.
    """

    step: str
    kind: str
    queue: str
    priority: int
    retry: RetryPolicy | None
    attempt_timeout: timedelta
    dependency: str | None
    failure: Failure


@dataclass(frozen=True, slots=True)
class CompleteExecution:
    """The execution has ended well, with this JSON value."""

    result: object


@dataclass(frozen=True, slots=True)
class FailExecution:
    """The execution has ended: `failed_step` failed first, every step that had started has ended."""

    failed_step: str
    failure: Failure


Action: TypeAlias = StartStep | PassRouter | RefuseStep | CompleteExecution | FailExecution
