"""All verbs in one place: each call goes to the verb for jobs of their own, or to the one that also advances executions."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from broker.job import Delivery, Enqueued, NewJob, Outcome
from broker.lifecycle.complete import Complete, Result
from broker.lifecycle.enqueue import Enqueue
from broker.lifecycle.executions import Executions
from broker.lifecycle.extend import Extend, ExtendAnswer, Heartbeat
from broker.lifecycle.fail import Expire, Fail, FailAnswer, FailedResult, LeaseMemory
from broker.lifecycle.judge import Judge
from broker.lifecycle.overdue import Overdue
from broker.lifecycle.release import Release
from broker.lifecycle.signals import Signals
from broker.lifecycle.steps import Steps
from broker.lifecycle.takers import Takers
from broker.lifecycle.tokens import LeaseRef
from broker.lifecycle.turns import Turns
from broker.store.session import Session


class Lifecycle:
    """The verbs of one broker. Jitter is a function that gives numbers uniform in [0, 1)."""

    def __init__(self, database_url: str, signals: Signals, jitter: Callable[[], float]) -> None:
        judge = Judge(jitter)
        self._reaper_session = Session(database_url)
        self._enqueue = Enqueue(database_url, signals)
        self._complete = Complete(database_url, signals)
        self._fail = Fail(database_url, judge, signals)
        self._release = Release(database_url, judge, signals)
        self._extend = Extend(database_url, signals)
        self._expire = Expire(self._reaper_session, judge, signals)
        self._turns = Turns(database_url, signals)
        self._steps = Steps(self._turns, judge, signals)
        self._overdue = Overdue(self._steps.expire)
        self.executions = Executions(self._turns, signals)

    def offer_to(self, takers: Takers) -> None:
        """New jobs are offered to these streams from now on, before they wait."""
        self._enqueue.takers = takers

    def recall_from(self, memory: LeaseMemory) -> None:
        """What is remembered of a lease is not read again from now on when its attempt fails."""
        self._fail.memory = memory

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Puts jobs in, all or none. Raises AlreadyExists, Unavailable, LimitExceeded."""
        return await self._enqueue(jobs)

    async def complete(self, results: Sequence[Result]) -> list[Outcome]:
        """Ends attempts that succeeded. Raises Unavailable."""
        own = [index for index, result in enumerate(results) if not result.lease.in_execution]
        if len(own) == len(results):
            return await self._complete(results)
        others = [index for index, result in enumerate(results) if result.lease.in_execution]
        answers: tuple[list[Outcome], list[Outcome]] = await asyncio.gather(
            self._complete([results[index] for index in own]) if own else _nothing(),
            self._steps.complete([results[index] for index in others]),
        )
        merged = dict(zip([*own, *others], [*answers[0], *answers[1]], strict=True))
        return [merged[index] for index in range(len(results))]

    async def fail(self, failed: Sequence[FailedResult]) -> list[FailAnswer]:
        """Ends attempts that failed, with a decision each. Raises Unavailable."""
        own = [index for index, item in enumerate(failed) if not item.lease.in_execution]
        if len(own) == len(failed):
            return await self._fail(failed)
        others = [index for index, item in enumerate(failed) if item.lease.in_execution]
        answers: tuple[list[FailAnswer], list[FailAnswer]] = await asyncio.gather(
            self._fail([failed[index] for index in own]) if own else _nothing(),
            self._steps.fail([failed[index] for index in others]),
        )
        merged = dict(zip([*own, *others], [*answers[0], *answers[1]], strict=True))
        return [merged[index] for index in range(len(failed))]

    async def release(self, leases: Sequence[LeaseRef]) -> list[Outcome]:
        """Gives leases back unused. Raises Unavailable."""
        own = [index for index, lease in enumerate(leases) if not lease.in_execution]
        others = [index for index, lease in enumerate(leases) if lease.in_execution]
        answers: tuple[list[Outcome], list[Outcome]] = await asyncio.gather(
            self._release([leases[index] for index in own]) if own else _nothing(),
            self._steps.release([leases[index] for index in others]) if others else _nothing(),
        )
        merged = dict(zip([*own, *others], [*answers[0], *answers[1]], strict=True))
        return [merged[index] for index in range(len(leases))]

    async def extend(self, heartbeat: Heartbeat) -> list[ExtendAnswer]:
        """Prolongs leases. Raises Unavailable."""
        return await self._extend(heartbeat)

    async def give_back(self, grants: Sequence[Delivery]) -> None:
        """Takes back leases that were delivered and not received; some of them, perhaps, where it raises Unavailable or LimitExceeded."""
        own = [grant for grant in grants if grant.execution_id is None]
        others = [grant for grant in grants if grant.execution_id is not None]
        failures = await asyncio.gather(
            self._release.give_back(own) if own else _nothing(),
            self._steps.give_back(others) if others else _nothing(),
            return_exceptions=True,
        )
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure

    async def expire(self, lease_ids: Sequence[int]) -> None:
        """Ends leases that have expired, as failures; those of executions a little later. Raises Unavailable."""
        self._overdue.add(await self._expire(lease_ids))

    async def close(self) -> None:
        """Returns when every call that waits has been answered."""
        await self._overdue.close()
        for verb in (
            self._enqueue,
            self._complete,
            self._fail,
            self._release,
            self._extend,
            self._steps,
            self._turns,
        ):
            await verb.close()
        await self._reaper_session.close()


async def _nothing() -> list[Any]:
    return []
