"""The retry path through gRPC: jobs that fail twice and then succeed, each failure decided by an expression.

Each failure has a message of its own, as with the id of a request in it; or all are alike, as of a downstream that is dead.
"""

import asyncio

import grpc
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import job_pb2, retry_pb2

from bench.go_client import as_base64, workers
from bench.loads.batch_load import subscriptions
from bench.loads.grpc_load import fill
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import Figure, Task

_ATTEMPTS = 3
_POLICY = retry_pb2.RetryPolicy(
    max_attempts=_ATTEMPTS,
    initial_delay=Duration(nanos=100_000_000),
    backoff_multiplier=1,
    retry_when="{{ error_type == 'bench.flaky' and status_code in [429, 503] }}",
)
_MESSAGE = "fails twice"
_FAILURE = job_pb2.Failure(message=_MESSAGE, type="bench.flaky", status_code=503)


async def enqueue(task: Task) -> None:
    """All jobs of the load."""
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await fill(channel, task.queue, task.load, _POLICY)


def measure(task: Task) -> list[Row]:
    """Attempts per second from the first lease of waiting jobs to the last completion; CPU time is that of one attempt."""
    load = task.load
    (figure,) = task.figures
    asyncio.run(enqueue(task))
    meter = Meter(task.site)
    with workers(
        task.program,
        task.site.address,
        subscriptions=subscriptions(task),
        jobs=load.jobs,
        fail_until=_ATTEMPTS,
        failure=as_base64(_FAILURE),
        message="" if figure is Figure.RETRY_PATH_ALIKE else _MESSAGE,
    ) as client:
        client.begin()
        client.end()
        values = meter.stop(load.jobs * _ATTEMPTS)
    return [Row(figure, "reprise", load.setting, values)]


if __name__ == "__main__":
    tell(measure(Task.from_command_line()))
