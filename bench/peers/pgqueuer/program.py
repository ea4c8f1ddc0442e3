"""PgQueuer as a peer: enqueues and works no-op jobs in one process, and says when each stretch begins and ends.

With asyncpg and uvloop, in large batches, as its benchmarks and its guide to throughput have it. It keeps three log rows for each job and
deletes the job; it talks to PostgreSQL without a server in between.
"""

import asyncio
import json
import random
import sys
import time
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job
from pgqueuer.queries import Queries

MANAGERS = 2
PRODUCERS = 2
ATTEMPTS = 3
RETRY_DELAY = timedelta(milliseconds=100)
# Due jobs are found by polling at this interval: the shortest that its documents name.
DEQUEUE_TIMEOUT = timedelta(milliseconds=100)


def say(**message: Any) -> None:
    """One line for the process that started this one."""
    print(json.dumps(message), flush=True)


def end(figure: str, jobs: int) -> None:
    """A stretch is over; waits for a line, as until then the process is metered."""
    say(end=figure, jobs=jobs)
    sys.stdin.readline()


class Bench:
    """The stretches that can be measured."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.jobs: int = task["jobs"]
        self.handled = 0
        self.progress = asyncio.Event()
        self.handle = self.count

    def count(self, job: Job) -> None:
        """The no-op handler."""
        self.handled += 1
        self.progress.set()

    async def open(self) -> None:
        """Makes the tables anew."""
        self.producers = [await self.connect() for _ in range(PRODUCERS)]
        queries = Queries(AsyncpgDriver(self.producers[0]))
        if await self.producers[0].fetchval("SELECT to_regclass('pgqueuer')"):
            await queries.uninstall()
        await queries.install()

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """One more connection."""
        return await asyncpg.connect(self.task["database_url"])

    async def work(self) -> None:
        """Starts queue managers, each on a connection of its own; they end with the process."""
        self.running = []
        for _ in range(MANAGERS):
            manager = PgQueuer(AsyncpgDriver(await self.connect()))

            manager.entrypoint("noop")(self.noop)
            self.running.append(
                asyncio.create_task(
                    manager.qm.run(batch_size=self.task["batch"], dequeue_timeout=DEQUEUE_TIMEOUT)
                )
            )

    async def noop(self, job: Job) -> None:
        """What the managers call."""
        self.handle(job)

    async def fill(self) -> None:
        """Enqueues all jobs in batches."""
        batch = self.task["batch"]
        payload = self.task["payload"].encode()

        async def produce(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            queries = Queries(AsyncpgDriver(connection))
            for _ in range(self.jobs // PRODUCERS // batch):
                await queries.enqueue(["noop"] * batch, [payload] * batch, [0] * batch)

        await asyncio.gather(*(produce(connection) for connection in self.producers))

    async def finish(self, attempts: int = 1) -> None:
        """Returns when every job was handled so often, and none is left in the database."""
        while self.handled < self.jobs * attempts:
            self.progress.clear()
            waiting = asyncio.create_task(self.progress.wait())
            await asyncio.wait([waiting, *self.running], return_when=asyncio.FIRST_COMPLETED)
            for one in self.running:
                if one.done():
                    one.result()
        while await self.producers[0].fetchval("SELECT EXISTS (SELECT FROM pgqueuer)"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def batches(self) -> None:
        """Enqueue, then burn-down of the same jobs."""
        say(begin=True)
        await self.fill()
        end("enqueue", self.jobs)
        await self.producers[0].execute("ANALYZE pgqueuer")
        say(begin=True)
        await self.work()
        await self.finish()
        end("burn-down", self.jobs)

    async def mixed(self) -> None:
        """Both at once."""
        await self.work()
        say(begin=True)
        await self.fill()
        await self.finish()
        end("mixed lifecycles", self.jobs)

    async def one_by_one(self) -> None:
        """One job per statement, from many connections."""
        connections = [await self.connect() for _ in range(self.task["callers"])]
        payload = self.task["payload"].encode()

        async def call(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
            queries = Queries(AsyncpgDriver(connection))
            for _ in range(self.jobs // len(connections)):
                await queries.enqueue("noop", payload)

        say(begin=True)
        await asyncio.gather(*(call(connection) for connection in connections))
        end("enqueue, one job per call", self.jobs // len(connections) * len(connections))

    async def start(self) -> None:
        """From the call of enqueue to the handler, one job at a time."""
        arrived: asyncio.Queue[float] = asyncio.Queue()
        self.handle = lambda job: arrived.put_nowait(time.perf_counter())
        await self.work()
        await asyncio.sleep(1)
        queries = Queries(AsyncpgDriver(self.producers[0]))
        waits = []
        for _ in range(self.jobs):
            await asyncio.sleep(random.uniform(0.005, 0.025))
            started = time.perf_counter()
            await queries.enqueue("noop", b"{}")
            waits.append((await arrived.get() - started) * 1000)
        say(waits="enqueue to start, at rest", milliseconds=waits)

    async def retry_lateness(self) -> None:
        """How long after it was due each retry comes to its handler."""
        late: asyncio.Queue[float] = asyncio.Queue()

        def handle(job: Job) -> None:
            if job.attempts == 0:
                raise RetryRequested(delay=timedelta(seconds=random.uniform(0, self.task["spread_seconds"])))
            late.put_nowait((time.time() - job.execute_after.timestamp()) * 1000)

        self.handle = handle
        await self.fill()
        await self.work()
        say(waits="retry lateness, at rest", milliseconds=[await late.get() for _ in range(self.jobs)])

    async def retry_path(self) -> None:
        """Jobs that fail twice and then succeed."""

        def handle(job: Job) -> None:
            self.count(job)
            if job.attempts < ATTEMPTS - 1:
                raise RetryRequested(delay=RETRY_DELAY)

        self.handle = handle
        await self.fill()
        await self.producers[0].execute("ANALYZE pgqueuer")
        say(begin=True)
        await self.work()
        await self.finish(ATTEMPTS)
        end("retry path", self.jobs * ATTEMPTS)


async def main() -> None:
    """Runs the stretch that was asked for."""
    task = json.loads(sys.argv[1])
    bench = Bench(task)
    await bench.open()
    await getattr(bench, task["figure"].replace(" ", "_"))()
    # Managers are not asked to end: what was measured is over.
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
