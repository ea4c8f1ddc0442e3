"""Advances executions: asks the playbook what follows, and writes it in the transaction that made it follow."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

from broker.errors import LimitExceeded, RepriseError, Unavailable
from broker.job import Arrival, NewJob
from broker.lifecycle.action_rows import failure_json, job_of, json_text, refusal_events, value_of
from broker.lifecycle.playbooks import Playbooks
from broker.lifecycle.standing import Standing
from broker.playbook.advance import advance
from broker.playbook.model import Playbook
from broker.playbook.progress import (
    Action,
    CompleteExecution,
    FailExecution,
    PassRouter,
    RefuseStep,
    StartStep,
    UnreadResults,
)
from broker.policy.decision import Failure
from broker.store.enqueue import Enqueuer, Placed
from broker.store.events import EventKind
from broker.store.executions import (
    LockedExecution,
    StepEnd,
    StepEvent,
    add_dead_job,
    details,
    end,
    record,
    start_steps,
    started_steps,
    step_ends,
)
from broker.store.session import Session

_JOBS_PER_STATEMENT = 1000
# What one execution may take to work out what follows, apart from reading. Its row is locked meanwhile.
_ADVANCE_SECONDS = 5
_EXECUTIONS_REMEMBERED = 1000
_MAX_REASON_CHARACTERS = 1000

_log = logging.getLogger(__name__)
_Choices: TypeAlias = dict[str, tuple[int, ...]]
_Written: TypeAlias = tuple[Action, str]
_T = TypeVar("_T")


class Advancer:
    """Advances locked executions on one session, inside its transaction."""

    def __init__(self, session: Session, playbooks: Playbooks) -> None:
        self._session = session
        self._playbooks = playbooks
        self._enqueuer = Enqueuer(session)
        self._choices: dict[int, _Choices] = {}
        self._new_choices: dict[int, _Choices] = {}

    async def advance(self, executions: Sequence[LockedExecution]) -> list[Arrival]:
        """Does what follows in each of these running executions; where its new jobs wait.

        One that cannot be advanced does no harm to the others: it fails once nothing of it runs any more.
        Raises Unavailable.
        """
        try:
            return await self._advance_all(executions)
        except (Unavailable, LimitExceeded):
            raise
        except Exception:
            arrivals: list[Arrival] = []
            for execution in executions:
                arrivals.extend(await self._advance_or_give_up(execution))
            return arrivals

    def committed(self) -> None:
        """The transaction was committed: what the steps chose in it stays chosen."""
        for execution_id, choices in self._new_choices.items():
            self._choices[execution_id] = self._choices.pop(execution_id, {}) | choices
        self._new_choices.clear()
        while len(self._choices) > _EXECUTIONS_REMEMBERED:
            del self._choices[next(iter(self._choices))]

    def forget(self) -> None:
        """The transaction was rolled back: what it wrote is not there to be referred to."""
        self._enqueuer.forget()
        self._new_choices.clear()

    async def _advance_all(self, executions: Sequence[LockedExecution]) -> list[Arrival]:
        """As `advance`, all or none of them."""
        if not executions:
            return []
        try:
            async with self._session.transaction():
                jobs: list[NewJob] = []
                for standing in await self._standings(executions):
                    jobs.extend(await self._record(standing.execution, await self._work_out(standing)))
                return await self._enqueue(jobs)
        except Exception:
            self.forget()
            raise

    async def _advance_or_give_up(self, execution: LockedExecution) -> list[Arrival]:
        try:
            return await self._advance_all([execution])
        except (Unavailable, LimitExceeded):
            raise
        except Exception as error:
            _log.exception("cannot be advanced execution_id=%d", execution.execution_id)
            await self._give_up(execution, error)
            return []

    async def _give_up(self, execution: LockedExecution, error: Exception) -> None:
        """Starts nothing more; the execution fails when its last step has ended, as with any step that is dead."""
        (standing,) = await self._standings([execution])
        if not standing.is_waiting:
            failure = Failure(message=_reason(error)[:_MAX_REASON_CHARACTERS], type="internal_error")
            await self._record(execution, [(FailExecution(standing.last_ended or "", failure), "")])

    async def _standings(self, executions: Sequence[LockedExecution]) -> list[Standing]:
        ids = [execution.execution_id for execution in executions]
        started: dict[int, list[tuple[str, int]]] = {id_: [] for id_ in ids}
        for execution_id, step, job_id in await started_steps(self._session, ids):
            started[execution_id].append((step, job_id))
        ends: dict[int, list[StepEnd]] = {id_: [] for id_ in ids}
        for end_of_step in await step_ends(self._session, ids):
            ends[end_of_step.execution_id].append(end_of_step)
        return [
            Standing(execution, started[execution.execution_id], ends[execution.execution_id])
            for execution in executions
        ]

    async def _work_out(self, standing: Standing) -> list[_Written]:
        """What follows in one execution. Results are read as they are asked for: once, as choices are remembered."""
        execution_id = standing.execution.execution_id
        _, book = await self._playbooks.of(self._session, standing.execution.path, standing.execution.version)
        choices = dict(self._choices.get(execution_id, {}))
        read: dict[str, str] = {}
        while True:
            try:
                actions = await _in_thread(partial(_advanced, book, standing, read, choices))
            except UnreadResults as unread:
                events = standing.events_with_results(unread.steps)
                found = await details(self._session, execution_id, list(events))
                read = {events[event_id]: detail for event_id, detail in found.items()}
            else:
                self._new_choices[execution_id] = choices
                return actions

    async def _record(self, execution: LockedExecution, actions: Iterable[_Written]) -> list[NewJob]:
        """Writes all but the jobs that are to run, which it returns: they are put in together."""
        execution_id = execution.execution_id
        events: list[StepEvent] = []
        steps: list[tuple[int, str, int]] = []
        jobs: list[NewJob] = []
        for action, value in actions:
            match action:
                case StartStep():
                    events.append(StepEvent(execution_id, EventKind.STEP_STARTED, action.step))
                    jobs.append(job_of(execution_id, action, value))
                case PassRouter():
                    events.append(StepEvent(execution_id, EventKind.STEP_STARTED, action.step))
                    detail = f'{{"result":{value}}}'
                    events.append(StepEvent(execution_id, EventKind.STEP_COMPLETED, action.step, detail))
                    steps.append((execution_id, action.step, 0))
                case RefuseStep():
                    job = job_of(execution_id, action, value)
                    # The job's row is the event of its enqueue: the step starts before that.
                    events.append(StepEvent(execution_id, EventKind.STEP_STARTED, action.step))
                    await record(self._session, events)
                    events = []
                    job_id = await add_dead_job(self._session, job)
                    events.extend(refusal_events(execution_id, job_id, job.max_attempts, action))
                    steps.append((execution_id, action.step, job_id))
                case CompleteExecution():
                    detail = f'{{"result":{value}}}'
                    events.append(StepEvent(execution_id, EventKind.EXECUTION_COMPLETED, detail=detail))
                    await end(self._session, execution_id, "completed", result=value)
                case FailExecution():
                    failure = failure_json(action.failure)
                    detail = f'{{"failed_step":{json_text(action.failed_step)},{failure[1:]}'
                    events.append(StepEvent(execution_id, EventKind.EXECUTION_FAILED, detail=detail))
                    await end(
                        self._session, execution_id, "failed", failed_step=action.failed_step, failure=failure
                    )
        await record(self._session, events)
        await start_steps(self._session, steps)
        return jobs

    async def _enqueue(self, jobs: Sequence[NewJob]) -> list[Arrival]:
        if not jobs:
            return []
        placed: list[Placed] = []
        for start in range(0, len(jobs), _JOBS_PER_STATEMENT):
            portion = jobs[start : start + _JOBS_PER_STATEMENT]
            placed += await self._enqueuer.put(portion, [0] * len(portion))
        await start_steps(
            self._session,
            [
                (job.execution_id or 0, job.step or "", place.job_id)
                for job, place in zip(jobs, placed, strict=True)
            ],
        )
        return [
            Arrival(job.queue, job.priority, place.job_id) for job, place in zip(jobs, placed, strict=True)
        ]


def _advanced(
    book: Playbook, standing: Standing, read: Mapping[str, str], choices: _Choices, check: Callable[[], None]
) -> list[_Written]:
    """What follows, written as JSON; `read` are details of the results that were asked for the last time."""
    standing.add_results(read)
    actions = advance(book, standing.progress(), choices, check)
    return [(action, value_of(action)) for action in actions]


def _reason(error: Exception) -> str:
    """Why an execution cannot be advanced, for those who look at it: the broker's log has the rest."""
    if isinstance(error, RepriseError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"internal error: what follows could not be worked out within {_ADVANCE_SECONDS} s"
    return f"internal error: {type(error).__name__}: {error}"


class _Stopped(Exception):
    """Nobody waits for this any more."""


async def _in_thread(work: Callable[[Callable[[], None]], _T]) -> _T:
    """`work` in a thread; it is given what to call now and then, so that it ends when nobody waits any more.

    Raises TimeoutError.
    """
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    try:
        async with asyncio.timeout(_ADVANCE_SECONDS):
            return await asyncio.to_thread(work, check)
    finally:
        stop.set()
