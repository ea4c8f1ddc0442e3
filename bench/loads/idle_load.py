"""Workers that wait: streams with credits for a queue in which nothing becomes available, beside jobs that are due in days."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import grpc
import psycopg
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2

from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import KIND, Task

WORKERS = 100
_CREDITS = 10
_DELAY = Duration(seconds=int(timedelta(days=2).total_seconds()))
_SETTLING_SECONDS = 15.0
_MEASURED_SECONDS = 60.0
# Each worker has a connection of its own, as it would from a machine of its own.
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


async def delay(channel: grpc.aio.Channel, task: Task) -> None:
    """Puts in the jobs of the load."""
    stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
    job = job_pb2.NewJob(queue=task.queue, kind=KIND, input_json=task.load.input_json(), delay=_DELAY)
    request = pb.EnqueueRequest(jobs=[job] * task.load.batch)
    for _ in range(task.load.jobs // task.load.batch):
        await stub.Enqueue(request)


async def subscribe(channel: grpc.aio.Channel, queue: str, number: int) -> asyncio.Task[None]:
    """A worker that has free slots and gets nothing."""
    call = broker_service_pb2_grpc.BrokerServiceStub(channel).Lease(None)
    await call.write(pb.LeaseRequest(queues=[queue], credits=_CREDITS, worker_id=f"bench-idle-{number}"))

    async def read() -> None:
        async for response in call:
            assert not response.leases, "a delayed job was leased"

    return asyncio.create_task(read())


def settle(database_url: str) -> None:
    """Leaves nothing to be tidied up later: what so many inserts leave behind is no cost of waiting."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


async def measure(task: Task) -> Row:
    """The share of one core that a stretch takes in which nothing happens."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(task.site.address, _OWN_CONNECTION))
            for _ in range(WORKERS)
        ]
        await delay(channels[0], task)
        await asyncio.to_thread(settle, task.site.database_url)
        reading = [await subscribe(channel, task.queue, number) for number, channel in enumerate(channels)]
        await asyncio.sleep(_SETTLING_SECONDS)
        meter = Meter(task.site)
        before = meter.read()
        await asyncio.sleep(_MEASURED_SECONDS)
        after = meter.read()
        for worker in reading:
            assert not worker.done(), worker.exception()
            worker.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    percent = 100 / (after.at - before.at)
    return Row(
        "idle, share of one core",
        "reprise",
        f"{WORKERS} workers, {task.load.jobs} delayed jobs",
        {
            "database_percent": percent * (after.database - before.database),
            "broker_percent": percent * (after.broker - before.broker),
        },
    )


if __name__ == "__main__":
    tell([asyncio.run(measure(Task.from_command_line()))])
