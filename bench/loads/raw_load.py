"""The same load by the broker's own statements, without gRPC: what the database and its driver allow.

An enqueuer, a leaser and a completer, each on a connection of its own, in one process, as they are in the broker: a statement of one runs
while the others prepare theirs. Calls the product's functions, so it cannot drift from them.
"""

import asyncio
import time
from dataclasses import replace

from bench.measurement import Row, tell
from bench.metering import Meter
from bench.report.medians import percentiles
from bench.workload import KIND, MAX_ATTEMPTS, STREAMS, Figure, Task, result_json
from broker.job import NewJob, Taker
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.store.enqueue import Enqueuer
from broker.store.finish import Completion, complete
from broker.store.grant import Lane, grant
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
        policy = to_json(RetryPolicy(max_attempts=MAX_ATTEMPTS))
        self._jobs = [
            NewJob(task.queue, KIND, task.load.input_json(number), policy=policy, max_attempts=MAX_ATTEMPTS)
            for number in range(task.load.batch)
        ]
        self._results = [result_json(number) for number in range(task.load.batch)]
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
        """Enqueues `count` jobs, at most a batch, by one statement."""
        await self._enqueuer.put(self._jobs[:count], [0] * count)
        self._arrived.set()

    async def drain(self) -> None:
        """Leases and completes as many jobs as the load has."""
        await asyncio.gather(self._lease_all(), self._complete_all())

    async def lease(self, count: int) -> list[int]:
        """Leases at most `count` jobs by one statement; their lease ids."""
        slots = [self._takers[number % len(self._takers)].stream for number in range(count)]
        granted, _ = await grant(
            self._sessions[1], [Lane(self._queue, _PRIORITY, self._floor, count, 0)], slots, self._takers
        )
        self._floor = max((lease.seq for lease in granted), default=self._floor)
        return [lease.lease_id for lease in granted]

    async def complete(self, lease_ids: list[int]) -> None:
        """Ends leases by one statement."""
        found = await complete(self._sessions[2], list(map(Completion, lease_ids, self._results)))
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


async def measure(task: Task) -> list[Row]:
    """The figures asked for, in this order: enqueue and burn-down of the same jobs, both at once as mixed, single jobs."""
    load = task.load
    rows: list[Row] = []
    lanes = Lanes(task)
    await _open(lanes)
    meter = Meter(replace(task.site, broker_pid=0))
    if Figure.ENQUEUE in task.figures:
        await lanes.fill()
        rows.append(Row(Figure.ENQUEUE, "raw", load.setting, meter.stop(load.jobs)))
    if Figure.BURN_DOWN in task.figures:
        meter.start()
        await lanes.drain()
        rows.append(Row(Figure.BURN_DOWN, "raw", load.setting, meter.stop(load.jobs)))
    if Figure.MIXED in task.figures:
        meter.start()
        await asyncio.gather(lanes.fill(), lanes.drain())
        rows.append(Row(Figure.MIXED, "raw", load.setting, meter.stop(load.jobs)))
    if Figure.ENQUEUE_TO_START in task.figures:
        rows.append(await _single_jobs(lanes, load.jobs))
    await lanes.close()
    return rows


async def _open(lanes: Lanes) -> None:
    """Connects and prepares, so that no figure pays for it."""
    await lanes.enqueue(1)
    await lanes.complete(await lanes.lease(1))


async def _single_jobs(lanes: Lanes, count: int) -> Row:
    """One job at a time: what the two statements between enqueue and lease take, one after the other."""
    waits = []
    for _ in range(count):
        await asyncio.sleep(_PAUSE_SECONDS)
        started = time.perf_counter()
        await lanes.enqueue(1)
        lease_ids = await lanes.lease(1)
        waits.append((time.perf_counter() - started) * 1000)
        await lanes.complete(lease_ids)
    return Row(Figure.ENQUEUE_TO_START, "raw", values=percentiles(waits))


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
