"""Single jobs through gRPC on a broker that does nothing else: how long from the call to the lease, and how late retries start."""

import asyncio
import random
import time
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.measurement import Row, tell
from bench.report.medians import percentiles
from bench.workload import KIND, RESULT, Figure, Task

# Pauses between jobs, random so that they do not fall in step with a timer.
_PAUSE_SECONDS = (0.005, 0.025)
# Retries are spread over so long by full jitter.
_SPREAD_SECONDS = 3


class Client:
    """One program that enqueues jobs and takes leases, one job at a time."""

    def __init__(self, channel: grpc.aio.Channel, queue: str) -> None:
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        self._queue = queue
        self._call = self._stub.Lease(None)

    async def subscribe(self, credit: int) -> None:
        """Opens the lease stream; as many leases may come."""
        await self._call.write(
            pb.LeaseRequest(queues=[self._queue], credits=credit, worker_id="bench-at-rest")
        )

    async def enqueue(self, jobs: int, input_json: str, retry: retry_pb2.RetryPolicy) -> None:
        """Puts equal jobs in by one call."""
        job = job_pb2.NewJob(queue=self._queue, kind=KIND, input_json=input_json, retry=retry)
        await self._stub.Enqueue(pb.EnqueueRequest(jobs=[job] * jobs))

    async def leases(self, count: int) -> list[tuple[job_pb2.Lease, float]]:
        """The next `count` leases, each with the instant of its arrival on the clock that people use."""
        arrived: list[tuple[job_pb2.Lease, float]] = []
        while len(arrived) < count:
            response = await self._call.read()
            assert isinstance(response, pb.LeaseResponse), "the lease stream has ended"
            arrived.extend((lease, time.time()) for lease in response.leases)
        return arrived

    async def complete(self, leases: list[job_pb2.Lease]) -> None:
        """Ends leases well."""
        await self._stub.Complete(
            pb.CompleteRequest(
                completions=[
                    pb.Completion(lease_token=lease.lease_token, result_json=RESULT) for lease in leases
                ]
            )
        )

    async def fail(self, leases: list[job_pb2.Lease]) -> dict[int, float]:
        """Ends leases badly by one call; when each job is due again, by job."""
        failure = job_pb2.Failure(message="fails once", type="BenchError")
        answer = await self._stub.Fail(
            pb.FailRequest(
                attempts=[
                    pb.FailedAttempt(lease_token=lease.lease_token, failure=failure) for lease in leases
                ]
            )
        )
        return {
            lease.job_id: failed.decision.available_at.ToNanoseconds() / 1e9
            for lease, failed in zip(leases, answer.results, strict=True)
        }


async def enqueue_to_start(client: Client, count: int, input_json: str) -> Row:
    """From the call of Enqueue to the lease in the hands of a client that waits for it, one job at a time."""
    await client.subscribe(count)
    waits = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))
        started = time.time()
        _, leases = await asyncio.gather(
            client.enqueue(1, input_json, retry_pb2.RetryPolicy()), client.leases(1)
        )
        waits.append((leases[0][1] - started) * 1000)
        await client.complete([lease for lease, _ in leases])
    return Row(Figure.ENQUEUE_TO_START, "reprise", values=percentiles(waits))


async def retry_lateness(client: Client, count: int, input_json: str) -> Row:
    """From the instant that a retry is due to its lease in the client's hands; nothing else arrives meanwhile that could wake anybody."""
    await client.subscribe(2 * count)
    policy = retry_pb2.RetryPolicy(
        max_attempts=2,
        initial_delay=_duration(timedelta(seconds=_SPREAD_SECONDS)),
        jitter=retry_pb2.JITTER_FULL,
    )
    await client.enqueue(count, input_json, policy)
    first = [lease for lease, _ in await client.leases(count)]
    due_at = await client.fail(first)
    second = await client.leases(count)
    waits = [(arrived_at - due_at[lease.job_id]) * 1000 for lease, arrived_at in second]
    assert min(waits) >= 0, "a retry came early"
    await client.complete([lease for lease, _ in second])
    return Row(Figure.RETRY_LATENESS, "reprise", values=percentiles(waits))


async def measure(task: Task) -> list[Row]:
    """The figures asked for."""
    rows: list[Row] = []
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        for figure, take in (
            (Figure.ENQUEUE_TO_START, enqueue_to_start),
            (Figure.RETRY_LATENESS, retry_lateness),
        ):
            if figure in task.figures:
                client = Client(channel, f"{task.queue}-{figure.name}")
                rows.append(await take(client, task.load.jobs, task.load.input_json))
    return rows


def _duration(value: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(value)
    return message


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
