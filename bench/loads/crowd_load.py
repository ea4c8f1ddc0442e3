"""Mixed lifecycles that many lease streams share, each over a connection of its own, as from as many workers.

Most of them may have nothing to do: their slots are taken, or their queues are empty. Also one small stream beside a big one.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.loads.grpc_load import Consumer, Goal, fill, working
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.report.medians import percentiles
from bench.workload import KIND, MAX_ATTEMPTS, PRODUCERS, RESULT, Crowd, Figure, Load, Task

_ENQUEUE = "/reprise.v1.BrokerService/Enqueue"
_POLICY = retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS)
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
# Of a worker that waits at an empty queue, and how many such workers share one.
_IDLE_CREDITS = 10
_IDLE_STREAMS_OF_QUEUE = 10
_SETTLING_SECONDS = 3.0
_BIG_CREDITS = 10_000
_SMALL_CREDITS = 10


async def produce(channel: grpc.aio.Channel, names: Sequence[str], load: Load, first: int) -> None:
    """Enqueues a producer's share in batches, job by job to the next queue from the one at `first` on."""
    enqueue = channel.unary_unary(_ENQUEUE)  # type: ignore[call-arg] # bytes both ways
    requests: list[bytes] = []
    for start in range(first, first + max(len(names), load.batch), load.batch):
        jobs = [
            job_pb2.NewJob(queue=names[(start + place) % len(names)], kind=KIND, input_json=load.input_json, retry=_POLICY)
            for place in range(load.batch)
        ]  # fmt: skip
        requests.append(pb.EnqueueRequest(jobs=jobs).SerializeToString())
    for number in range(load.jobs // PRODUCERS // load.batch):
        await enqueue(requests[number % len(requests)])


async def mixed(stack: AsyncExitStack, task: Task, crowd: Crowd) -> Row:
    """Lifecycles per second while all streams are open; how far the slowest of the busy ones lies behind the median."""
    address, load = task.site.address, task.load
    names = crowd.queue_names(task.queue)
    goal = Goal(load.jobs)

    async def opened(queues: Sequence[str], credit: int, name: str) -> Consumer:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, _OWN_CONNECTION))
        return Consumer(channel, queues, credit, name, goal)

    busy = [
        await opened(crowd.queues_of(number, names), crowd.credits, f"busy-{number}")
        for number in range(crowd.busy)
    ]
    taken = [await opened(names[:1], 0, f"taken-{number}") for number in range(crowd.taken)]
    idle = [
        await opened([f"empty-{number // _IDLE_STREAMS_OF_QUEUE}"], _IDLE_CREDITS, f"idle-{number}")
        for number in range(crowd.idle)
    ]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
    async with working([*busy, *taken, *idle], goal):
        await asyncio.sleep(_SETTLING_SECONDS)
        meter = Meter(task.site)
        async with asyncio.TaskGroup() as producing:
            for number in range(PRODUCERS):
                producing.create_task(produce(channel, names, load, number * len(names) // PRODUCERS))
            await goal.reached
        values = meter.stop(load.jobs)
    completed = [consumer.completed for consumer in busy]
    values["median_of_least"] = median(completed) / max(1, min(completed))
    return Row(Figure.MIXED, "reprise", load.setting, values)


async def small_beside_big(stack: AsyncExitStack, task: Task) -> Row:
    """How long a stream of few credits waits for its first lease each time, while one of many takes all it can get."""
    address = task.site.address
    channels = [
        await stack.enter_async_context(grpc.aio.insecure_channel(address, _OWN_CONNECTION)) for _ in range(2)
    ]
    await fill(channels[0], task.queue, task.load)
    goal = Goal(task.load.jobs * 9 // 10)
    big = Consumer(channels[0], [task.queue], _BIG_CREDITS, "big", goal)
    started = time.perf_counter()
    async with working([big], goal):
        small = asyncio.create_task(_waits(channels[1], task.queue, big, goal))
        await goal.reached
        waits, meanwhile = await small
    seconds = time.perf_counter() - started
    values = percentiles(waits) | {
        "most_leases_of_other": float(max(meanwhile)),
        "other_per_second": big.completed / seconds,
    }
    return Row(Figure.SMALL_BESIDE_BIG, "reprise", "", values)


async def _waits(
    channel: grpc.aio.Channel, queue: str, big: Consumer, goal: Goal
) -> tuple[list[float], list[int]]:
    """Milliseconds from each giving of credits to the first lease, and what the big one has completed in between."""
    stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
    call = stub.Lease(None)
    request = pb.LeaseRequest(queues=[queue], credits=_SMALL_CREDITS, worker_id="small")
    waits: list[float] = []
    meanwhile: list[int] = []
    while not goal.reached.done():
        asked_at, before = time.perf_counter(), big.completed
        await call.write(request)
        missing = _SMALL_CREDITS
        while missing:
            response = await call.read()
            assert isinstance(response, pb.LeaseResponse), "the lease stream has ended"
            if not response.leases:
                continue
            if missing == _SMALL_CREDITS:
                waits.append((time.perf_counter() - asked_at) * 1000)
                meanwhile.append(big.completed - before)
            missing -= len(response.leases)
            await stub.Complete(
                pb.CompleteRequest(
                    completions=[
                        pb.Completion(lease_token=lease.lease_token, result_json=RESULT)
                        for lease in response.leases
                    ]
                )
            )
        request = pb.LeaseRequest(credits=_SMALL_CREDITS)
    return waits, meanwhile


async def measure(task: Task) -> list[Row]:
    """The figures asked for."""
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        if Figure.MIXED in task.figures:
            assert task.crowd is not None
            rows.append(await mixed(stack, task, task.crowd))
        if Figure.SMALL_BESIDE_BIG in task.figures:
            rows.append(await small_beside_big(stack, task))
    return rows


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
