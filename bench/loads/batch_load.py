"""Batches through gRPC by the client in Go, which takes a third of the machine's time that the same load takes in Python.

Where the task names no such program, it is the load in Python.
"""

import asyncio
from collections.abc import Sequence

import grpc
from reprise.v1 import broker_service_pb2 as pb

from bench.go_client import Workers, as_base64, workers
from bench.loads import grpc_load
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import PRODUCERS, STREAMS, Figure, Task


def subscriptions(task: Task) -> list[str]:
    """The first messages of the lease streams."""
    return [
        as_base64(
            pb.LeaseRequest(queues=[task.queue], credits=task.load.credits, worker_id=f"bench-{number}")
        )
        for number in range(STREAMS)
    ]


async def enqueue(task: Task) -> None:
    """All jobs of the load, by the producers in Python: requests are built once, so there is little to it."""
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await channel.channel_ready()
        await grpc_load.fill(channel, task.queue, task.load)


def measure(task: Task) -> list[Row]:
    """The figures asked for, in this order: enqueue and burn-down of the same jobs, or both at once as mixed."""
    if not task.program:
        return asyncio.run(grpc_load.measure(task))
    rows: list[Row] = []
    if Figure.ENQUEUE in task.figures:
        meter = Meter(task.site)
        asyncio.run(enqueue(task))
        rows.append(_row(task, Figure.ENQUEUE, meter))
    if Figure.BURN_DOWN in task.figures:
        rows.append(_work(task, Figure.BURN_DOWN, []))
    if Figure.MIXED in task.figures:
        requests = [
            [as_base64(grpc_load.request_of(task.queue, task.load, producer))]
            for producer in range(PRODUCERS)
        ]
        rows.append(_work(task, Figure.MIXED, requests))
    return rows


def _work(task: Task, figure: Figure, producers: Sequence[Sequence[str]]) -> Row:
    load = task.load
    meter = Meter(task.site)
    with workers(
        task.program,
        task.site.address,
        subscriptions=subscriptions(task),
        producers=producers,
        calls=load.jobs // PRODUCERS // load.batch,
        jobs=load.jobs,
    ) as client:
        _run(client)
        return _row(task, figure, meter)


def _run(client: Workers) -> None:
    client.begin()
    client.end()


def _row(task: Task, figure: Figure, meter: Meter) -> Row:
    return Row(figure, "reprise", task.load.setting, meter.stop(task.load.jobs))


if __name__ == "__main__":
    tell(measure(Task.from_command_line()))
