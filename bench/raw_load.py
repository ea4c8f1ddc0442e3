"""The same load by the broker's own statements, without gRPC: what the database and its driver allow.

An enqueuer, a leaser and a completer, each on a connection of its own, in one process, as they are in the broker: a statement of one runs
while the others prepare theirs. Calls the product's functions, so it cannot drift from them.
"""

import asyncio
import time

from bench.metering import Meter
from bench.workload import KIND, MAX_ATTEMPTS, RESULT, STREAMS, Figure, Measured, Route, Task, Waits, tell
from broker.job import NewJob
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.store.enqueue import Enqueuer
from broker.store.finish import Completion, complete
from broker.store.grant import Lane, Taker, grant
from broker.store.session import Session

_LEASE_SECONDS = 30.0
_PRIORITY = 0
_PAUSE_SECONDS = 0.01


class Lanes:
    """The three actors over one queue."""

    def __init__(self, task: Task) -> None:
        self._load = task.load
        self._queue = task.queue
        self._sessions = [Session(task.site.database_url) for _ in range(3)]
        self._enqueuer = Enqueuer(self._sessions[0])
        self._job = NewJob(
            task.queue,
            KIND,
            task.load.input_json,
            policy=to_json(RetryPolicy(max_attempts=MAX_ATTEMPTS)),
            max_attempts=MAX_ATTEMPTS,
        )
        # One enqueuer, so jobs come in the order of their ids: nothing appears behind what was leased last.
        self._floor = 0
        self._arrived = asyncio.Event()
        self._takers = [Taker(number, f"bench-{number}", _LEASE_SECONDS) for number in range(1, STREAMS + 1)]
        # As many leases may be out as the streams of the gRPC load have credits.
        self._leased: asyncio.Queue[list[int]] = asyncio.Queue(
            max(1, STREAMS * task.load.credits // task.load.batch)
        )

    async def fill(self) -> None:
        """Enqueues all jobs of the load in batches."""
        for _ in range(self._load.jobs // self._load.batch):
            await self.enqueue(self._load.batch)

    async def enqueue(self, count: int) -> None:
        """Enqueues `count` jobs by one statement."""
        await self._enqueuer.put([self._job] * count, [0] * count)
        self._arrived.set()

    async def drain(self) -> None:
        """Leases and completes as many jobs as the load has."""
        await asyncio.gather(self._lease_all(), self._complete_all())

    async def lease(self, count: int) -> list[int]:
        """Leases at most `count` jobs by one statement; their lease ids."""
        slots = [self._takers[number % len(self._takers)].stream for number in range(count)]
        granted = await grant(
            self._sessions[1], [Lane(self._queue, _PRIORITY, self._floor, count, 0)], slots, self._takers
        )
        self._floor = max((lease.seq for lease in granted), default=self._floor)
        return [lease.lease_id for lease in granted]

    async def complete(self, lease_ids: list[int]) -> None:
        """Ends leases by one statement."""
        found = await complete(self._sessions[2], [Completion(lease_id, RESULT) for lease_id in lease_ids])
        assert len(found) == len(lease_ids)

    async def close(self) -> None:
        """Closes the connections."""
        for session in self._sessions:
            await session.close()

    async def _lease_all(self) -> None:
        left = self._load.jobs
        while left:
            self._arrived.clear()
            lease_ids = await self.lease(self._load.batch)
            if lease_ids:
                left -= len(lease_ids)
                await self._leased.put(lease_ids)
            else:
                await self._arrived.wait()

    async def _complete_all(self) -> None:
        left = self._load.jobs
        while left:
            lease_ids = await self._leased.get()
            await self.complete(lease_ids)
            left -= len(lease_ids)


async def measure(task: Task) -> list[Measured]:
    """The figures asked for, in this order: enqueue and burn-down of the same jobs, both at once as mixed, single jobs."""
    measured: list[Measured] = []
    lanes = Lanes(task)
    await _open(lanes)
    if Figure.ENQUEUE in task.figures:
        meter = Meter.start(task.site)
        await lanes.fill()
        measured.append(meter.stop(Figure.ENQUEUE, Route.RAW, task.load))
        meter = Meter.start(task.site)
        await lanes.drain()
        measured.append(meter.stop(Figure.BURN_DOWN, Route.RAW, task.load))
    if Figure.MIXED in task.figures:
        meter = Meter.start(task.site)
        await asyncio.gather(lanes.fill(), lanes.drain())
        measured.append(meter.stop(Figure.MIXED, Route.RAW, task.load))
    if Figure.ENQUEUE_TO_LEASE in task.figures:
        measured.append(await _single_jobs(lanes, task.load.jobs))
    await lanes.close()
    return measured


async def _open(lanes: Lanes) -> None:
    """Connects and prepares, so that no figure pays for it."""
    await lanes.enqueue(1)
    await lanes.complete(await lanes.lease(1))


async def _single_jobs(lanes: Lanes, count: int) -> Waits:
    """One job at a time: what the two statements between enqueue and lease take, one after the other."""
    waits = []
    for _ in range(count):
        await asyncio.sleep(_PAUSE_SECONDS)
        started = time.perf_counter()
        await lanes.enqueue(1)
        lease_ids = await lanes.lease(1)
        waits.append((time.perf_counter() - started) * 1000)
        await lanes.complete(lease_ids)
    return Waits(Figure.ENQUEUE_TO_LEASE, Route.RAW, waits)


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
