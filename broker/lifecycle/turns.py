"""Transactions that hold executions: the rows are locked first, in the order of ids, and read in a new statement.

What two branches end in two brokers at once is thereby seen by the second. One session serves all verbs of executions of a broker.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from broker.errors import LimitExceeded, RepriseError
from broker.lifecycle.advance import Advancer
from broker.lifecycle.playbooks import Playbooks
from broker.lifecycle.signals import Signals
from broker.store import executions as store
from broker.store.executions import LockedExecution
from broker.store.session import Session

RUNNING = "running"
CANCELLED = "cancelled"

# How long a transaction may hold its executions, and how many may wait for theirs.
_TURN_SECONDS = 20
_MAX_WAITING = 1000


T = TypeVar("T")

_log = logging.getLogger(__name__)


class TurnTooLong(LimitExceeded):
    """A transaction held its executions for too long and was rolled back: with fewer of them it may be short enough."""


@dataclass(slots=True)
class Turn:
    """One transaction: the executions that it holds, those of which a step has ended, and what to tell once it is committed."""

    locked: Mapping[int, LockedExecution]
    ended_steps: set[int] = field(default_factory=set)
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    @property
    def cancelled(self) -> frozenset[int]:
        """The executions that were cancelled."""
        return frozenset(
            execution_id for execution_id, execution in self.locked.items() if execution.status == CANCELLED
        )

    def to_advance(self) -> list[LockedExecution]:
        """The executions in which something may follow."""
        return [self.locked[id_] for id_ in sorted(self.ended_steps) if self.locked[id_].status == RUNNING]


class Turns:
    """Takes turns on one session; `arrived` and the like are told once a turn is committed."""

    def __init__(self, database_url: str, signals: Signals) -> None:
        self.session = Session(database_url)
        self.playbooks = Playbooks()
        self.advancer = Advancer(self.session, self.playbooks)
        self._signals = signals
        self._busy = asyncio.Lock()
        self._waiting = 0
        self._holder: asyncio.Task[Any] | None = None
        self._under_way: set[asyncio.Task[Any]] = set()

    async def carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives. From its turn on it goes on to its end though its caller is cancelled: what it commits is told as well."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._holder is task:
                task.add_done_callback(_log_failure)
            else:
                task.cancel()
            raise

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A transaction without executions to advance. Raises Unavailable, LimitExceeded, TurnTooLong."""
        if self._waiting >= _MAX_WAITING:
            raise LimitExceeded("too many calls for executions wait for the database")
        self._waiting += 1
        try:
            await self._busy.acquire()
        finally:
            self._waiting -= 1
        self._holder = asyncio.current_task()
        try:
            async with self._at_most(_TURN_SECONDS), self.session.transaction():
                yield
            self.advancer.committed()
        except BaseException:
            self.advancer.forget()
            raise
        finally:
            self._holder = None
            self._busy.release()

    @asynccontextmanager
    async def _at_most(self, seconds: float) -> AsyncIterator[None]:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TurnTooLong(f"what follows in the executions took longer than {seconds} s") from error

    @asynccontextmanager
    async def holding(self, job_ids: Iterable[int]) -> AsyncIterator[Turn]:
        """A transaction that holds the executions of the jobs; when the block ends they are advanced, then it commits.

        Raises Unavailable, LimitExceeded, TurnTooLong.
        """
        async with self.alone():
            ids = await store.executions_of(self.session, job_ids)
            turn = Turn(await store.lock(self.session, ids))
            yield turn
            arrivals = await self.advancer.advance(turn.to_advance())
        for tell in turn.after_commit:
            tell()
        self._signals.arrived(arrivals)
        self._signals.execution_changed(turn.locked)

    async def close(self) -> None:
        """Returns when what has begun is done."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self.session.close()


def _log_failure(task: "asyncio.Task[Any]") -> None:
    """Of what goes on without a caller, nobody else hears."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, RepriseError):
        _log.error("what a caller left has failed", exc_info=error)
