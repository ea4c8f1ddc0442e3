"""A steady stream of jobs through gRPC, far below what the broker can do: how long each waits from its instant to its lease.

Open loop: calls go out at their instants, whether earlier ones are answered or not, so a pause of the broker shows in full.
"""

import asyncio
import json
import time
from collections.abc import Sequence

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.loads.grpc_load import Consumer, Goal, working
from bench.measurement import Row, tell
from bench.report.medians import percentiles
from bench.workload import KIND, MAX_ATTEMPTS, STREAMS, Figure, Load, Task

JOBS_PER_SECOND = 2_000
_POLICY = retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS)


class TimingConsumer(Consumer):
    """One lease stream that notes how long after its instant each job has come."""

    def __init__(
        self, channel: grpc.aio.Channel, queues: Sequence[str], credit: int, worker_id: str, goal: Goal
    ) -> None:
        super().__init__(channel, queues, credit, worker_id, goal)
        self.waits: list[float] = []  # milliseconds

    async def report(self, leases: Sequence[job_pb2.Lease]) -> None:
        """All are done; each says when it was due."""
        now = time.perf_counter()
        self.waits += [(now - json.loads(lease.input_json)["at"]) * 1000 for lease in leases]
        await super().report(leases)


async def produce(channel: grpc.aio.Channel, queue: str, load: Load) -> None:
    """Enqueues a batch at each of its instants."""
    stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as calls:
        for number in range(load.jobs // load.batch):
            at = started + number * load.batch / JOBS_PER_SECOND
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            told = {"at": at, "payload": "x" * load.payload_bytes}
            job = job_pb2.NewJob(queue=queue, kind=KIND, input_json=json.dumps(told), retry=_POLICY)
            calls.create_task(_enqueue(stub, pb.EnqueueRequest(jobs=[job] * load.batch)))


async def _enqueue(
    stub: "broker_service_pb2_grpc.BrokerServiceAsyncStub", request: pb.EnqueueRequest
) -> None:
    await stub.Enqueue(request)


async def measure(task: Task) -> list[Row]:
    """The waits of all jobs of the load."""
    load = task.load
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await channel.channel_ready()
        goal = Goal(load.jobs)
        consumers = [
            TimingConsumer(channel, [task.queue], load.credits, f"bench-{number}", goal)
            for number in range(STREAMS)
        ]
        async with working(consumers, goal):
            await produce(channel, task.queue, load)
            await goal.reached
    waits = [wait for consumer in consumers for wait in consumer.waits]
    return [Row(Figure.STEADY, "reprise", values=percentiles(waits))]


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
