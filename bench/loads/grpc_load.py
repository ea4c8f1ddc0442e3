"""Load through gRPC: a process that enqueues batches, holds lease streams and completes what they deliver.

Made to cost little, as it shares the machine with what it measures: requests are built once, as bytes; answers are parsed once or, where
nobody reads them, not at all. A client like any other in all else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import KIND, MAX_ATTEMPTS, PRODUCERS, STREAMS, Figure, Load, Task, result_json

_ENQUEUE = "/reprise.v1.BrokerService/Enqueue"
_POLICY = retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS)


class Goal:
    """How many jobs are still to be done."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def count(self, done: int) -> None:
        """So many more are done."""
        self.left -= done
        if self.left <= 0 and not self.reached.done():
            self.reached.set_result(None)

    def watch(self, consumer: asyncio.Task[None]) -> None:
        """Who waits for the goal gets the error of a consumer that has failed."""
        if not consumer.cancelled() and (error := consumer.exception()) and not self.reached.done():
            self.reached.set_exception(error)


class Consumer:
    """One lease stream whose jobs are done the moment they arrive."""

    def __init__(
        self, channel: grpc.aio.Channel, queues: Sequence[str], credit: int, worker_id: str, goal: Goal
    ) -> None:
        self.stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        self._subscription = pb.LeaseRequest(queues=queues, credits=credit, worker_id=worker_id)
        self._writing = asyncio.Lock()  # writes to one stream must not overlap
        self._goal = goal
        self.completed = 0

    async def run(self) -> None:
        """Subscribes and completes until it is cancelled."""
        call = self.stub.Lease(None)
        await call.write(self._subscription)
        async with asyncio.TaskGroup() as finishing:
            async for response in call:
                if response.leases:
                    finishing.create_task(self._finish(call, response.leases))

    async def report(self, leases: Sequence[job_pb2.Lease]) -> None:
        """Says what became of leases that were delivered together: all are done."""
        request = pb.CompleteRequest(
            completions=[
                pb.Completion(lease_token=lease.lease_token, result_json=result_json(lease.job_id))
                for lease in leases
            ]
        )
        answer = await self.stub.Complete(request)
        assert all(result.outcome == pb.LEASE_OUTCOME_OK for result in answer.results)
        self.completed += len(leases)
        self._goal.count(len(leases))

    async def _finish(
        self,
        call: grpc.aio.StreamStreamCall[pb.LeaseRequest, pb.LeaseResponse],
        leases: Sequence[job_pb2.Lease],
    ) -> None:
        await self.report(leases)
        async with self._writing:
            await call.write(pb.LeaseRequest(credits=len(leases)))


def request_of(
    queue: str, load: Load, producer: int, policy: retry_pb2.RetryPolicy = _POLICY
) -> pb.EnqueueRequest:
    """One batch of this producer: its inputs are all different, and others than those of other producers."""
    first = producer * load.batch
    return pb.EnqueueRequest(
        jobs=[
            job_pb2.NewJob(queue=queue, kind=KIND, input_json=load.input_json(number), retry=policy)
            for number in range(first, first + load.batch)
        ]
    )


async def produce(channel: grpc.aio.Channel, load: Load, request: pb.EnqueueRequest, jobs: int) -> None:
    """Enqueues `jobs` in batches, one call after the other."""
    enqueue = channel.unary_unary(_ENQUEUE)  # type: ignore[call-arg] # bytes both ways
    serialized = request.SerializeToString()
    for _ in range(jobs // load.batch):
        await enqueue(serialized)


async def fill(
    channel: grpc.aio.Channel, queue: str, load: Load, policy: retry_pb2.RetryPolicy = _POLICY
) -> None:
    """Enqueues all jobs of the load by its producers side by side."""
    share = load.jobs // PRODUCERS
    async with asyncio.TaskGroup() as producing:
        for producer in range(PRODUCERS):
            request = request_of(queue, load, producer, policy)
            producing.create_task(produce(channel, load, request, share))


async def drain(channel: grpc.aio.Channel, queue: str, load: Load) -> None:
    """Leases and completes as many jobs as the load has."""
    goal = Goal(load.jobs)
    consumers = [
        Consumer(channel, [queue], load.credits, f"bench-{number}", goal) for number in range(STREAMS)
    ]
    async with working(consumers, goal):
        await goal.reached


@asynccontextmanager
async def working(consumers: Iterable[Consumer], goal: Goal) -> AsyncIterator[None]:
    """Consumers at work while the block runs, which waits for the goal."""
    running = [asyncio.create_task(consumer.run()) for consumer in consumers]
    for one in running:
        one.add_done_callback(goal.watch)
    try:
        yield
    finally:
        for one in running:
            one.remove_done_callback(goal.watch)
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def measure(task: Task) -> list[Row]:
    """The figures asked for, in this order: enqueue and burn-down of the same jobs, or both at once as mixed."""
    load, queue = task.load, task.queue
    rows: list[Row] = []
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await channel.channel_ready()
        meter = Meter(task.site)
        if Figure.ENQUEUE in task.figures:
            await fill(channel, queue, load)
            rows.append(Row(Figure.ENQUEUE, "reprise", load.setting, meter.stop(load.jobs)))
        if Figure.BURN_DOWN in task.figures:
            meter.start()
            await drain(channel, queue, load)
            rows.append(Row(Figure.BURN_DOWN, "reprise", load.setting, meter.stop(load.jobs)))
        if Figure.MIXED in task.figures:
            meter.start()
            await asyncio.gather(fill(channel, queue, load), drain(channel, queue, load))
            rows.append(Row(Figure.MIXED, "reprise", load.setting, meter.stop(load.jobs)))
    return rows


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
