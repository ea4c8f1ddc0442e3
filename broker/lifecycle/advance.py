"""Advances executions: asks the playbook what follows, and writes it in the transaction that made it follow."""

import asyncio
import json
from collections.abc import Mapping, Sequence

from broker.errors import NotFound
from broker.job import Arrival, NewJob
from broker.playbook.advance import advance
from broker.playbook.model import Playbook
from broker.playbook.parse import parse_playbook
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
from broker.policy.decision import Decision, Failure, Reason, Verdict, describe
from broker.policy.retry_policy import to_json
from broker.store.enqueue import Enqueuer
from broker.store.events import EventKind
from broker.store.executions import (
    LockedExecution,
    StepEnd,
    StepEvent,
    add_dead_job,
    end,
    playbook,
    record,
    start_steps,
    started_steps,
    step_ends,
)
from broker.store.session import Session

_PLAYBOOKS_KEPT = 500


class Playbooks:
    """Playbooks by path and version, read once: a version never changes."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[str, int], Playbook] = {}

    async def of(self, session: Session, path: str, version: int) -> tuple[int, Playbook]:
        """The version asked for, 0 for the newest, and its playbook. Raises NotFound, Unavailable."""
        if (path, version) in self._parsed:
            return version, self._parsed[path, version]
        stored = await playbook(session, path, version)
        if stored is None:
            wanted = f"version {version} of playbook" if version else "playbook"
            raise NotFound(f"no {wanted} {path!r}", "PLAYBOOK_NOT_FOUND")
        key = (path, stored.version)
        if key not in self._parsed:
            if len(self._parsed) >= _PLAYBOOKS_KEPT:
                self._parsed.clear()
            self._parsed[key] = await asyncio.to_thread(parse_playbook, stored.body)
        return stored.version, self._parsed[key]


class Advancer:
    """Advances locked executions on one session, inside its transaction."""

    def __init__(self, session: Session, playbooks: Playbooks) -> None:
        self._session = session
        self._playbooks = playbooks
        self._enqueuer = Enqueuer(session)

    async def advance(self, executions: Sequence[LockedExecution]) -> list[Arrival]:
        """Does what follows in each of these running executions; where its new jobs wait. Raises Unavailable."""
        if not executions:
            return []
        progress = await self._progress(executions)
        jobs: list[NewJob] = []
        for execution in executions:
            _, book = await self._playbooks.of(self._session, execution.path, execution.version)
            actions = await asyncio.to_thread(advance, book, progress[execution.execution_id])
            jobs.extend(await self._record(execution.execution_id, actions))
        return await self._enqueue(jobs)

    def forget(self) -> None:
        """The transaction was rolled back: what it wrote is not there to be referred to."""
        self._enqueuer.forget()

    async def _progress(self, executions: Sequence[LockedExecution]) -> dict[int, Progress]:
        ids = [execution.execution_id for execution in executions]
        started = await started_steps(self._session, ids)
        ends: dict[tuple[int, str], dict[int, StepEnd]] = {}
        for step_end in await step_ends(self._session, ids):
            ends.setdefault((step_end.execution_id, step_end.step), {})[step_end.kind] = step_end
        records: dict[int, dict[str, StepRecord]] = {execution_id: {} for execution_id in ids}
        for execution_id, step, job_id in started:
            records[execution_id][step] = _step_record(step, job_id, ends.get((execution_id, step), {}))
        return {
            execution.execution_id: Progress(
                execution.execution_id, json.loads(execution.workload), records[execution.execution_id]
            )
            for execution in executions
        }

    async def _record(self, execution_id: int, actions: Sequence[Action]) -> list[NewJob]:
        """Writes all but the jobs that are to run, which it returns: they are put in together."""
        events: list[StepEvent] = []
        steps: list[tuple[int, str, int]] = []
        jobs: list[NewJob] = []
        for action in actions:
            match action:
                case StartStep():
                    events.append(StepEvent(execution_id, EventKind.STEP_STARTED, action.step))
                    jobs.append(_job(execution_id, action, _json(action.input)))
                case PassRouter():
                    events.append(StepEvent(execution_id, EventKind.STEP_STARTED, action.step))
                    detail = _json({"result": action.result})
                    events.append(StepEvent(execution_id, EventKind.STEP_COMPLETED, action.step, detail))
                    steps.append((execution_id, action.step, 0))
                case RefuseStep():
                    job = _job(execution_id, action, "{}")
                    job_id = await add_dead_job(self._session, job)
                    events.extend(_refusal(execution_id, job_id, job.max_attempts, action))
                    steps.append((execution_id, action.step, job_id))
                case CompleteExecution():
                    result = _json(action.result)
                    events.append(
                        StepEvent(
                            execution_id, EventKind.EXECUTION_COMPLETED, detail=f'{{"result":{result}}}'
                        )
                    )
                    await end(self._session, execution_id, "completed", result=result)
                case FailExecution():
                    failure = failure_json(action.failure)
                    detail = f'{{"failed_step":{_json(action.failed_step)},{failure[1:]}'
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
        placed = await self._enqueuer.put(jobs, [0] * len(jobs))
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


def failure_json(failure: Failure) -> str:
    """What an execution and its events keep of a failure: error, error_type, status_code."""
    return _json({"error": failure.message, "error_type": failure.type, "status_code": failure.status_code})


def _step_record(step: str, job_id: int, ends: Mapping[int, StepEnd]) -> StepRecord:
    failed = ends.get(EventKind.STEP_FAILED)
    if failed is not None:
        members = json.loads(failed.detail or "{}")
        failure = Failure(
            message=members.get("error", ""),
            type=members.get("error_type", ""),
            status_code=members.get("status_code"),
        )
        return StepRecord(step, job_id, Outcome.DEAD, None, failure, failed.event_id)
    completed = ends.get(EventKind.STEP_COMPLETED)
    if completed is None:
        return StepRecord(step, job_id)
    if job_id == 0:
        result = json.loads(completed.detail or "{}").get("result")
    else:
        result = json.loads(ends[EventKind.ACTION_COMPLETED].detail or "null")
    return StepRecord(step, job_id, Outcome.DONE, result, None, completed.event_id)


def _job(execution_id: int, action: StartStep | RefuseStep, job_input: str) -> NewJob:
    return NewJob(
        queue=action.queue,
        kind=action.kind,
        input=job_input,
        priority=action.priority,
        policy=None if action.retry is None else to_json(action.retry),
        max_attempts=1 if action.retry is None else action.retry.max_attempts,
        attempt_timeout_seconds=action.attempt_timeout.total_seconds(),
        dependency=action.dependency,
        execution_id=execution_id,
        step=action.step,
    )


def _refusal(execution_id: int, job_id: int, max_attempts: int, action: RefuseStep) -> list[StepEvent]:
    """The events of a step whose job is dead before it ever ran."""
    decision = Decision(Verdict.DEAD, Reason.NOT_RENDERED, 0, max_attempts)
    detail = {
        "attempt": 0,
        "max_attempts": max_attempts,
        "reason": decision.reason.value,
        "message": describe(decision),
        "error": action.failure.message,
        "error_type": action.failure.type,
    }
    return [
        StepEvent(execution_id, EventKind.STEP_STARTED, action.step),
        StepEvent(execution_id, EventKind.JOB_ENQUEUED, action.step, job_id=job_id),
        StepEvent(execution_id, EventKind.JOB_DEAD, action.step, _json(detail), job_id, max_attempts),
        StepEvent(execution_id, EventKind.STEP_FAILED, action.step, failure_json(action.failure)),
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
