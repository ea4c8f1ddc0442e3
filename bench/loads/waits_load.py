"""Waits through gRPC: how long from the call of Enqueue to the start, and how late retries and scheduled jobs start.

Each job is enqueued by a client of its own, and leased by one that waits for it; the instants are of the one clock of this machine.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.go_client import as_base64, workers
from bench.measurement import Row, tell
from bench.report.medians import percentiles
from bench.workload import KIND, Figure, Load, Task, result_json

# Pauses between jobs, random so that they do not fall in step with a timer.
_PAUSE_SECONDS = (0.005, 0.025)
# At rest so many are due per second, at random: nothing else arrives that could wake anybody.
_DUE_PER_SECOND_AT_REST = 50
_DUE_PER_SECOND_BUSY = 1_000
_CALL_JOBS = 500
_HEAD_START_SECONDS = 2.0  # of the first scheduled job, so that all are enqueued before it is due


class Client:
    """One program that enqueues jobs and takes leases, maybe at another broker."""

    def __init__(
        self, enqueuing: grpc.aio.Channel, leasing: grpc.aio.Channel, queue: str, task: Task
    ) -> None:
        self._enqueuing = broker_service_pb2_grpc.BrokerServiceStub(enqueuing)
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(leasing)
        self._queue = queue
        self._task = task
        self._call = self._stub.Lease(None)

    async def subscribe(self, credit: int) -> None:
        """Opens the lease stream; as many leases may come."""
        await self._call.write(pb.LeaseRequest(queues=[self._queue], credits=credit, worker_id="bench-waits"))

    @asynccontextmanager
    async def watching(self, jobs: int) -> AsyncIterator[Callable[[], Awaitable[Mapping[int, float]]]]:
        """Lets as many leases come from now on, and gives what waits for them: when each job came. They are completed.

        They come to the client in Go where there is one, so that little of their wait is this program's.
        """
        if not self._task.program:
            await self._call.write(pb.LeaseRequest(queues=[self._queue], credits=jobs))
            yield lambda: self._take(jobs)
            return
        request = pb.LeaseRequest(queues=[self._queue], credits=jobs, worker_id="bench-waits")
        site = self._task.site
        with workers(
            self._task.program,
            site.lease_address or site.address,
            subscriptions=[as_base64(request)],
            jobs=jobs,
            arrivals=True,
        ) as client:
            client.begin()
            yield lambda: asyncio.to_thread(lambda: client.end().arrived_at)

    def job(self, input_json: str, **more: retry_pb2.RetryPolicy | Timestamp) -> job_pb2.NewJob:
        """A job for this client's queue."""
        return job_pb2.NewJob(queue=self._queue, kind=KIND, input_json=input_json, **more)  # type: ignore[arg-type]

    async def enqueue(self, jobs: list[job_pb2.NewJob]) -> list[int]:
        """Puts jobs in, in few calls; their ids."""
        ids: list[int] = []
        for first in range(0, len(jobs), _CALL_JOBS):
            answer = await self._enqueuing.Enqueue(pb.EnqueueRequest(jobs=jobs[first : first + _CALL_JOBS]))
            ids += [job.job_id for job in answer.jobs]
        return ids

    async def leases(self) -> tuple[list[job_pb2.Lease], float]:
        """The next leases, and the instant of their arrival on the clock that people use."""
        while True:
            response = await self._call.read()
            assert isinstance(response, pb.LeaseResponse), "the lease stream has ended"
            if response.leases:
                return list(response.leases), time.time()

    async def complete(self, leases: list[job_pb2.Lease]) -> None:
        """Ends leases well."""
        completions = [
            pb.Completion(lease_token=lease.lease_token, result_json=result_json(lease.job_id))
            for lease in leases
        ]
        await self._stub.Complete(pb.CompleteRequest(completions=completions))

    async def fail(self, leases: list[job_pb2.Lease]) -> dict[int, float]:
        """Ends leases badly by one call; when each job is due again, by job."""
        failure = job_pb2.Failure(message="fails once", type="BenchError")
        attempts = [pb.FailedAttempt(lease_token=lease.lease_token, failure=failure) for lease in leases]
        answer = await self._stub.Fail(pb.FailRequest(attempts=attempts))
        return {
            lease.job_id: failed.decision.available_at.ToNanoseconds() / 1e9
            for lease, failed in zip(leases, answer.results, strict=True)
        }

    async def _take(self, jobs: int) -> Mapping[int, float]:
        arrived_at: dict[int, float] = {}
        async with asyncio.TaskGroup() as finishing:
            while len(arrived_at) < jobs:
                leases, at = await self.leases()
                arrived_at |= dict.fromkeys((lease.job_id for lease in leases), at)
                finishing.create_task(self.complete(leases))
        return arrived_at


def lateness(due_at: Mapping[int, float], arrived_at: Mapping[int, float]) -> list[float]:
    """Milliseconds that each job came after it was due."""
    waits = [(arrived_at[job_id] - due) * 1000 for job_id, due in due_at.items()]
    assert min(waits) >= 0, "a job came early"
    return waits


async def enqueue_to_start(client: Client, load: Load, per_second: int) -> list[float]:
    """From the call of Enqueue to the lease in the hands of a client that waits for it, one job at a time."""
    await client.subscribe(load.jobs)
    waits = []
    for _ in range(load.jobs):
        await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
        started = time.time()
        _, (leases, arrived_at) = await asyncio.gather(
            client.enqueue([client.job(load.input_json())]), client.leases()
        )
        waits.append((arrived_at - started) * 1000)
        await client.complete(leases)
    return waits


async def retry_lateness(client: Client, load: Load, per_second: int) -> list[float]:
    """From the instant that a retry is due to its lease in the client's hands."""
    await client.subscribe(load.jobs)
    # Between half of the longest delay and all of it: none is due while others still fail.
    longest = Duration()
    longest.FromTimedelta(timedelta(seconds=2 * load.jobs / per_second))
    policy = retry_pb2.RetryPolicy(
        max_attempts=2, initial_delay=longest, max_delay=longest, jitter=retry_pb2.JITTER_EQUAL
    )
    await client.enqueue([client.job(load.input_json(number), retry=policy) for number in range(load.jobs)])
    first: list[job_pb2.Lease] = []
    while len(first) < load.jobs:
        first += (await client.leases())[0]
    async with client.watching(load.jobs) as arrivals:
        due_at: dict[int, float] = {}
        for start in range(0, load.jobs, _CALL_JOBS):
            due_at |= await client.fail(first[start : start + _CALL_JOBS])
        return lateness(due_at, await arrivals())


async def scheduled_lateness(client: Client, load: Load, per_second: int) -> list[float]:
    """From the instant that a job was scheduled for to its lease in the client's hands."""
    async with client.watching(load.jobs) as arrivals:
        begin = time.time() + _HEAD_START_SECONDS
        jobs = []
        for number in range(load.jobs):
            at = begin + random.uniform(0, load.jobs / per_second)
            run_at = Timestamp()
            run_at.FromNanoseconds(int(at * 1e6) * 1000)  # the database keeps microseconds
            jobs.append(client.job(load.input_json(number), run_at=run_at))
        ids = await client.enqueue(jobs)
        due_at = {job_id: job.run_at.ToNanoseconds() / 1e9 for job_id, job in zip(ids, jobs, strict=True)}
        return lateness(due_at, await arrivals())


_Take = Callable[[Client, Load, int], Coroutine[None, None, list[float]]]
_TAKES: dict[Figure, tuple[_Take, int]] = {
    Figure.ENQUEUE_TO_START: (enqueue_to_start, 0),
    Figure.RETRY_LATENESS: (retry_lateness, _DUE_PER_SECOND_AT_REST),
    Figure.RETRY_LATENESS_BUSY: (retry_lateness, _DUE_PER_SECOND_BUSY),
    Figure.SCHEDULED_LATENESS: (scheduled_lateness, _DUE_PER_SECOND_AT_REST),
    Figure.SCHEDULED_LATENESS_BUSY: (scheduled_lateness, _DUE_PER_SECOND_BUSY),
}


async def measure(task: Task) -> list[Row]:
    """The figures asked for."""
    rows: list[Row] = []
    site = task.site
    async with (
        grpc.aio.insecure_channel(site.address) as enqueuing,
        grpc.aio.insecure_channel(site.lease_address or site.address) as leasing,
    ):
        await asyncio.gather(enqueuing.channel_ready(), leasing.channel_ready())
        for figure in task.figures:
            take, per_second = _TAKES[figure]
            client = Client(enqueuing, leasing, f"{task.queue}-{figure.name}", task)
            waits = await take(client, task.load, per_second)
            settings = ("two brokers" if site.lease_address else "", "client in Go" if task.program else "")
            rows.append(Row(figure, "reprise", ", ".join(filter(None, settings)), percentiles(waits)))
    return rows


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
