"""Enqueue: all jobs of a call, or none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.batching import Shared, weight_of
from broker.errors import AlreadyExists, RepriseError
from broker.job import Arrival, Enqueued, Grant, NewJob
from broker.json_text import same_json
from broker.lifecycle.signals import Signals
from broker.lifecycle.takers import Nobody, Reservation, Takers
from broker.store.enqueue import Enqueuer, Placed
from broker.store.session import Session

# Jobs of one statement: beyond about 500 a statement gains little and holds up the calls behind it (measured 2026-11).
_JOBS_PER_STATEMENT = 1000

Call = Sequence[NewJob]
Answer = list[Enqueued]


class _Items(NamedTuple):
    """The items of a call: for each its index in the jobs of the statement; `repeats` are those that an earlier one stands for."""

    indices: Sequence[int]
    repeats: Collection[int] = ()


@dataclass(slots=True)
class _Round:
    """The calls of one statement: those whose keys do not meet each other."""

    jobs: list[NewJob] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)  # of each job: the index of its call
    items: dict[int, _Items] = field(default_factory=dict)  # by the index of the call
    keys: set[tuple[str, str]] = field(default_factory=set)  # queue and key


class Enqueue:
    """The verb, shared by all calls of this broker. Whoever wires the broker sets `takers`."""

    def __init__(self, database_url: str, signals: Signals) -> None:
        self._session = Session(database_url)
        self._enqueuer = Enqueuer(self._session)
        self._signals = signals
        self.takers: Takers = Nobody()
        self._shared: Shared[Call, Answer] = Shared([self._run], _weigh, _JOBS_PER_STATEMENT)

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
        jobs = this_round.jobs
        reservation = self.takers.reserve(jobs)
        granted: list[Grant] = []
        try:
            placed = await self._enqueuer.put(
                jobs, this_round.owners, reservation.slots, list(reservation.takers.values())
            )
            granted = _granted(jobs, placed, reservation, self._enqueuer.policy_ids)
        finally:
            self.takers.take(reservation.slots, granted)
        if len(granted) < len(jobs):
            # The leaser that this wakes begins before the next statement does (see Shared), and has spoken for what was left waiting when
            # that one looks at the queue. Else its jobs had to wait too, and those of the next, until all went through the lane: at 43 us
            # of the database's time each, not 31 (measured 2026-11).
            self._announce(jobs, placed)
        return {call: _answer(placed, items) for call, items in this_round.items.items()}

    def _announce(self, jobs: Sequence[NewJob], placed: Sequence[Placed]) -> None:
        lanes: dict[tuple[str, int], list[int]] = {}
        delays: list[float] = []
        for job, place in zip(jobs, placed, strict=True):
            if not place.created or place.refused or place.lease_id is not None:
                continue
            if place.due_in_seconds is not None:
                delays.append(place.due_in_seconds)
            else:
                lanes.setdefault((job.queue, job.priority), []).append(place.job_id)
        if lanes:
            self._signals.arrived([Arrival(*lane, min(seqs), len(seqs)) for lane, seqs in lanes.items()])
        if delays:
            self._signals.due_in(min(delays))


def _granted(
    jobs: Sequence[NewJob],
    placed: Sequence[Placed],
    reservation: Reservation,
    policy_ids: Mapping[str | None, int],
) -> list[Grant]:
    """The leases of the jobs that streams took as they came in."""
    granted = []
    for job, place, stream in zip(jobs, placed, reservation.slots, strict=False):
        if stream is None or place.lease_id is None or place.expires_at is None:
            continue
        granted.append(
            # By position: by name it takes three times as long (measured 2026-11).
            Grant(
                stream, place.lease_id, place.job_id, place.job_id,
                job.input, job.traceparent, None, None,
                job.priority, job.queue, None if job.policy is None else policy_ids[job.policy], job.kind, 1, job.max_attempts,
                place.expires_at,
                job.execution_id, job.step, job.attempt_timeout_seconds, job.dependency, job.labels,
            )
        )  # fmt: skip
    return granted


def _weigh(jobs: Call) -> int:
    return weight_of(len(jobs), sum(len(job.input) for job in jobs))


def _join(this_round: _Round, call: int, jobs: Call) -> bool:
    """Adds a call to the round; False where one of its keys is taken there by another call. Raises AlreadyExists."""
    keyed = [(job.queue, job.idempotency_key) for job in jobs if job.idempotency_key is not None]
    if not this_round.keys.isdisjoint(keyed):
        return False
    start = len(this_round.jobs)
    items, added = _apart(jobs, start) if keyed else (_Items(range(start, start + len(jobs))), jobs)
    this_round.keys.update(keyed)
    this_round.jobs.extend(added)
    this_round.owners.extend([call] * len(added))
    this_round.items[call] = items
    return True


def _apart(jobs: Call, start: int) -> tuple[_Items, list[NewJob]]:
    """The items of a call with keys, and its jobs without those that repeat another's key. Raises AlreadyExists."""
    indices: list[int] = []
    repeats: set[int] = set()
    added: list[NewJob] = []
    keys: dict[tuple[str, str], int] = {}
    for position, job in enumerate(jobs):
        if job.idempotency_key is not None:
            first = keys.setdefault((job.queue, job.idempotency_key), len(added))
            if first < len(added):
                if not _same(added[first], job):
                    raise _reused(position, job)
                indices.append(start + first)
                repeats.add(position)
                continue
        indices.append(start + len(added))
        added.append(job)
    return _Items(indices, repeats), added


def _answer(placed: Sequence[Placed], items: _Items) -> Answer | Exception:
    own = [placed[index] for index in items.indices]
    for position, place in enumerate(own):
        if place.conflicts:
            return AlreadyExists(f"jobs[{position}].idempotency_key: belongs to another job, {place.job_id}")
    return [
        Enqueued(place.job_id, place.created and position not in items.repeats)
        for position, place in enumerate(own)
    ]


def _same(first: NewJob, second: NewJob) -> bool:
    return first.kind == second.kind and same_json(first.input, second.input)


def _reused(position: int, job: NewJob) -> AlreadyExists:
    return AlreadyExists(
        f"jobs[{position}].idempotency_key: {job.idempotency_key!r} stands for another job of this call"
    )
