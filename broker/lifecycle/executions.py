"""The verbs of whole executions: register their playbook, start one, cancel it. What their steps do stands in `steps`."""

import asyncio
import json
from datetime import datetime
from typing import NamedTuple

from broker.errors import AlreadyExists, NotFound, WrongState
from broker.job import Arrival
from broker.lifecycle.signals import Signals
from broker.lifecycle.turns import CANCELLED, RUNNING, Turns
from broker.playbook.parse import parse_playbook
from broker.store import executions as store
from broker.store.cancel import cancel_leased, cancel_waiting
from broker.store.events import EventKind
from broker.store.executions import LockedExecution, StartedBefore, StepEvent


class Started(NamedTuple):
    """An execution, and whether this call started it."""

    execution_id: int
    created: bool


class Registered(NamedTuple):
    """A playbook's version, and whether this call made it."""

    path: str
    version: int
    name: str
    created_at: datetime
    created: bool


class Executions:
    """The verbs of whole executions, and of the playbooks that they run."""

    def __init__(self, turns: Turns, signals: Signals) -> None:
        self._turns = turns
        self._session = turns.session
        self._signals = signals

    async def register(self, body: str) -> Registered:
        """The version of the playbook with this text (YAML): a new one, unless the newest is the same.

        Raises PlaybookInvalid with every fault, Unavailable.
        """
        playbook = await asyncio.to_thread(parse_playbook, body, is_new=True)
        async with self._turns.alone():
            stored = await store.register(self._session, playbook.path, playbook.name, body)
        return Registered(playbook.path, stored.version, playbook.name, stored.created_at, stored.created)

    async def start(self, path: str, version: int, given: str, key: str | None) -> Started:
        """Starts the playbook; `given` (a JSON object) overlays its workload key by key; version 0 is the newest.

        Raises NotFound, AlreadyExists when the key stands for another start of the path, Unavailable.
        """
        return await self._turns.carry_through(self._start(path, version, given, key))

    async def cancel(self, execution_id: int, reason: str) -> None:
        """Cancels a running execution: what waits is dead at once, what runs is told to stop.

        Repeated: nothing happens. Raises NotFound, WrongState when it has ended otherwise, Unavailable.
        """
        await self._turns.carry_through(self._cancel(execution_id, reason or "the execution was cancelled"))

    async def _start(self, path: str, version: int, given: str, key: str | None) -> Started:
        arrivals: list[Arrival] = []
        async with self._turns.alone():
            newest, playbook = await self._turns.playbooks.of(self._session, path, version)
            workload = json.dumps({**playbook.workload, **json.loads(given)}, ensure_ascii=False)
            started = await store.start(self._session, path, newest, workload, given, key)
            if not isinstance(started, StartedBefore):
                await store.record(self._session, [StepEvent(started, EventKind.EXECUTION_STARTED)])
                execution = LockedExecution(started, path, newest, RUNNING, workload)
                arrivals = await self._turns.advancer.advance([execution])
        if isinstance(started, StartedBefore):
            if not started.same_workload or version not in (0, started.version):
                raise AlreadyExists(
                    f"idempotency_key: stands for another start of {path!r}, execution {started.execution_id}"
                )
            return Started(started.execution_id, created=False)
        self._signals.arrived(arrivals)
        self._signals.execution_changed([started])
        return Started(started, created=True)

    async def _cancel(self, execution_id: int, why: str) -> None:
        async with self._turns.alone():
            execution = (await store.lock(self._session, [execution_id])).get(execution_id)
            if execution is None:
                raise NotFound(f"no execution {execution_id}", "EXECUTION_NOT_FOUND")
            if execution.status == CANCELLED:
                return
            if execution.status != RUNNING:
                raise WrongState(f"execution {execution_id}: is {execution.status}", "EXECUTION_ENDED")
            await store.end(self._session, execution_id, CANCELLED)
            await cancel_waiting(self._session, execution_id, why)
            leases = await cancel_leased(self._session, execution_id, why)
            detail = json.dumps({"reason": why}, ensure_ascii=False)
            await store.record(
                self._session, [StepEvent(execution_id, EventKind.EXECUTION_CANCELLED, detail=detail)]
            )
        self._signals.cancelled(leases)
        self._signals.execution_changed([execution_id])
