"""Mixed lifecycles that many lease streams share, each over a connection of its own, as from as many workers.

Most of them may have nothing to do: their slots are taken, or their queues are empty. Also one small stream beside a big one.
"""

import asyncio
import time
from collections.abc import Sequence
from statistics import median

import grpc
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.go_client import as_base64, workers
from bench.loads.grpc_load import Consumer, Goal, fill, working
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.report.medians import percentiles
from bench.workload import KIND, MAX_ATTEMPTS, PRODUCERS, Crowd, Figure, Load, Task, result_json

_POLICY = retry_pb2.RetryPolicy(max_attempts=MAX_ATTEMPTS)
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
# Of a worker that waits at an empty queue, and how many such workers share one.
_IDLE_CREDITS = 10
_IDLE_STREAMS_OF_QUEUE = 10
_SETTLING_SECONDS = 3.0
_BIG_CREDITS = 10_000
_SMALL_CREDITS = 10


def requests_of(names: Sequence[str], load: Load, first: int) -> list[str]:
    """What a producer enqueues, call by call: batches, job by job to the next queue from the one at `first` on."""
    requests: list[str] = []
    for start in range(first, first + max(len(names), load.batch), load.batch):
        jobs = [
            job_pb2.NewJob(queue=names[(start + place) % len(names)], kind=KIND, input_json=load.input_json(start + place), retry=_POLICY)
            for place in range(load.batch)
        ]  # fmt: skip
        requests.append(as_base64(pb.EnqueueRequest(jobs=jobs)))
    return requests


def mixed(task: Task, crowd: Crowd) -> Row:
    """Lifecycles per second while all streams are open; how far the slowest of the busy ones lies behind the median."""
    load = task.load
    names = crowd.queue_names(task.queue)
    busy = [
        _subscription(crowd.queues_of(number, names), crowd.credits, f"busy-{number}")
        for number in range(crowd.busy)
    ]
    taken = [_subscription(names[:1], 0, f"taken-{number}") for number in range(crowd.taken)]
    idle = [
        _subscription([f"empty-{number // _IDLE_STREAMS_OF_QUEUE}"], _IDLE_CREDITS, f"idle-{number}")
        for number in range(crowd.idle)
    ]
    with workers(
        task.program,
        task.site.address,
        subscriptions=[*busy, *taken, *idle],
        producers=[requests_of(names, load, number * len(names) // PRODUCERS) for number in range(PRODUCERS)],
        calls=load.jobs // PRODUCERS // load.batch,
        jobs=load.jobs,
    ) as client:
        time.sleep(_SETTLING_SECONDS)
        meter = Meter(task.site)
        client.begin()
        worked = client.end()
        values = meter.stop(load.jobs)
    completed = worked.completed[: crowd.busy]
    values["leases_per_message"] = load.jobs / worked.messages
    values["median_of_least"] = median(completed) / max(1, min(completed))
    return Row(Figure.MIXED, "reprise", load.setting, values)


def _subscription(queues: Sequence[str], credit: int, worker_id: str) -> str:
    return as_base64(pb.LeaseRequest(queues=queues, credits=credit, worker_id=worker_id))


async def small_beside_big(task: Task) -> Row:
    """How long a stream of few credits waits for its first lease each time, while one of many takes all it can get."""
    address = task.site.address
    async with (
        grpc.aio.insecure_channel(address, _OWN_CONNECTION) as of_big,
        grpc.aio.insecure_channel(address, _OWN_CONNECTION) as of_small,
    ):
        await fill(of_big, task.queue, task.load)
        goal = Goal(task.load.jobs * 9 // 10)
        big = Consumer(of_big, [task.queue], _BIG_CREDITS, "big", goal)
        started = time.perf_counter()
        async with working([big], goal):
            small = asyncio.create_task(_waits(of_small, task.queue, big, goal))
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
                        pb.Completion(lease_token=lease.lease_token, result_json=result_json(lease.job_id))
                        for lease in response.leases
                    ]
                )
            )
        request = pb.LeaseRequest(credits=_SMALL_CREDITS)
    return waits, meanwhile


def measure(task: Task) -> list[Row]:
    """The figures asked for."""
    rows: list[Row] = []
    if Figure.MIXED in task.figures:
        assert task.crowd is not None
        rows.append(mixed(task, task.crowd))
    if Figure.SMALL_BESIDE_BIG in task.figures:
        rows.append(asyncio.run(small_beside_big(task)))
    return rows


if __name__ == "__main__":
    tell(measure(Task.from_command_line()))
