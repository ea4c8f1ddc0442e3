"""Enqueue: all jobs of a call, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.batching import Shared, weight_of
from broker.errors import AlreadyExists, RepriseError
from broker.job import Arrival, Enqueued, NewJob
from broker.json_text import same_json
from broker.lifecycle.signals import Signals
from broker.store.enqueue import Enqueuer, Placed
from broker.store.session import Session

# Jobs of one statement: beyond about 500 a statement gains little and holds up the calls behind it (measured 2026-11).
_JOBS_PER_STATEMENT = 1000

Call = Sequence[NewJob]
Answer = list[Enqueued]


@dataclass(slots=True)
class _Round:
    """The calls of one statement: those whose keys do not meet each other."""

    jobs: list[NewJob] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # of each job: the index of its call
    items: dict[int, list[tuple[int, bool]]] = field(
        default_factory=dict
    )  # call -> its items: (index in jobs, stands for itself)
    keys: dict[tuple[str, str], int] = field(default_factory=dict)  # (queue, key) -> index in jobs


class Enqueue:
    """The verb, shared by all calls of this broker."""

    def __init__(self, database_url: str, signals: Signals) -> None:
        self._session = Session(database_url)
        self._enqueuer = Enqueuer(self._session)
        self._signals = signals
        self._shared: Shared[Call, Answer] = Shared(self._run, _weigh, _JOBS_PER_STATEMENT)

    async def __call__(self, jobs: Call) -> Answer:
        """Where each job is, in order; durable when it returns.

        Raises AlreadyExists when an idempotency key belongs to another job, Unavailable, LimitExceeded: then nothing was put in.
        """
        return await self._shared(jobs)

    async def close(self) -> None:
        """Returns when the calls that wait are answered."""
        await self._shared.close()
        await self._session.close()

    async def _run(self, calls: Sequence[Call]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        waiting = dict(enumerate(calls))
        while waiting:
            # A call that shares a key with an earlier one waits for the next statement, so that it sees what became of it.
            this_round = _Round()
            for index, jobs in list(waiting.items()):
                try:
                    if _join(this_round, index, jobs):
                        del waiting[index]
                except AlreadyExists as error:
                    answers[index] = error
                    del waiting[index]
            try:
                answers.update(await self._put(this_round))
            except RepriseError as error:
                # Earlier rounds are committed: only the calls of this one are told to repeat.
                answers.update(dict.fromkeys(this_round.items, error))
        return [answers[index] for index in range(len(calls))]

    async def _put(self, this_round: _Round) -> dict[int, Answer | Exception]:
        if not this_round.jobs:
            return {}
        placed = await self._enqueuer.put(this_round.jobs, this_round.owners)
        self._announce(this_round.jobs, placed)
        return {call: _answer(placed, items) for call, items in this_round.items.items()}

    def _announce(self, jobs: Sequence[NewJob], placed: Sequence[Placed]) -> None:
        first: dict[tuple[str, int], int] = {}
        due_in: float | None = None
        for job, place in zip(jobs, placed, strict=True):
            if not place.created or place.refused:
                continue
            if place.due_in_seconds is not None:
                due_in = place.due_in_seconds if due_in is None else min(due_in, place.due_in_seconds)
            else:
                lane = (job.queue, job.priority)
                if lane not in first or place.job_id < first[lane]:
                    first[lane] = place.job_id
        if first:
            self._signals.arrived([Arrival(queue, priority, seq) for (queue, priority), seq in first.items()])
        if due_in is not None:
            self._signals.due_in(due_in)


def _weigh(jobs: Call) -> int:
    return weight_of(len(jobs), sum(len(job.input) for job in jobs))


def _join(this_round: _Round, call: int, jobs: Call) -> bool:
    """Adds a call to the round; False where one of its keys is taken there by another call. Raises AlreadyExists."""
    keyed = [(job.queue, job.idempotency_key) for job in jobs if job.idempotency_key is not None]
    if any(key in this_round.keys for key in keyed):
        return False
    start = len(this_round.jobs)
    own: list[tuple[int, bool]] = []
    added: list[NewJob] = []
    keys: dict[tuple[str, str], int] = {}
    for position, job in enumerate(jobs):
        key = None if job.idempotency_key is None else (job.queue, job.idempotency_key)
        if key is not None and key in keys:
            first = keys[key]
            if not _same(added[first - start], job):
                raise _reused(position, job)
            own.append((first, False))
            continue
        if key is not None:
            keys[key] = start + len(added)
        own.append((start + len(added), True))
        added.append(job)
    this_round.jobs.extend(added)
    this_round.owners.extend([call] * len(added))
    this_round.keys.update(keys)
    this_round.items[call] = own
    return True


def _answer(placed: Sequence[Placed], items: Sequence[tuple[int, bool]]) -> Answer | Exception:
    for position, (index, _) in enumerate(items):
        if placed[index].conflicts:
            return AlreadyExists(
                f"jobs[{position}].idempotency_key: belongs to another job, {placed[index].job_id}"
            )
    return [Enqueued(placed[index].job_id, placed[index].created and own) for index, own in items]


def _same(first: NewJob, second: NewJob) -> bool:
    return first.kind == second.kind and same_json(first.input, second.input)


def _reused(position: int, job: NewJob) -> AlreadyExists:
    return AlreadyExists(
        f"jobs[{position}].idempotency_key: {job.idempotency_key!r} stands for another job of this call"
    )
