"""Transactions that hold executions: the rows are locked first, in the order of ids, and read in a new statement.

What two branches end in two brokers at once is thereby seen by the second. One session serves all verbs of executions of a broker.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.lifecycle.advance import Advancer, Playbooks
from broker.lifecycle.signals import Signals
from broker.store import executions as store
from broker.store.executions import LockedExecution
from broker.store.session import Session

RUNNING = "running"
CANCELLED = "cancelled"


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

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A transaction without executions to advance. Raises Unavailable."""
        async with self._busy:
            try:
                async with self.session.transaction():
                    yield
            except BaseException:
                self.advancer.forget()
                raise

    @asynccontextmanager
    async def holding(self, job_ids: Iterable[int]) -> AsyncIterator[Turn]:
        """A transaction that holds the executions of the jobs; when the block ends they are advanced, then it commits."""
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
        """Closes the session."""
        await self.session.close()
