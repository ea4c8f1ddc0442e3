"""The retry path through gRPC: jobs that fail twice and then succeed, each failure decided by an expression."""

import asyncio
from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2, retry_pb2

from bench.loads.grpc_load import Consumer, Goal, fill, working
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import STREAMS, Figure, Task

_ATTEMPTS = 3
_POLICY = retry_pb2.RetryPolicy(
    max_attempts=_ATTEMPTS,
    initial_delay=Duration(nanos=100_000_000),
    backoff_multiplier=1,
    retry_when="{{ error_type == 'bench.flaky' and status_code in [429, 503] }}",
)
_FAILURE = job_pb2.Failure(message="fails twice", type="bench.flaky", status_code=503)


class FlakyConsumer(Consumer):
    """One lease stream that fails every attempt but a job's last."""

    async def report(self, leases: Sequence[job_pb2.Lease]) -> None:
        """Says what became of leases that were delivered together."""
        early = [lease for lease in leases if lease.attempt < _ATTEMPTS]
        last = [lease for lease in leases if lease.attempt == _ATTEMPTS]
        if early:
            attempts = [pb.FailedAttempt(lease_token=lease.lease_token, failure=_FAILURE) for lease in early]
            answer = await self.stub.Fail(pb.FailRequest(attempts=attempts))
            assert all(result.outcome == pb.LEASE_OUTCOME_OK for result in answer.results)
        if last:
            await super().report(last)


async def measure(task: Task) -> list[Row]:
    """Attempts per second from the first lease of waiting jobs to the last completion; CPU time is that of one attempt."""
    load = task.load
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await fill(channel, task.queue, load, _POLICY)
        goal = Goal(load.jobs)
        consumers = [
            FlakyConsumer(channel, [task.queue], load.credits, f"bench-{number}", goal)
            for number in range(STREAMS)
        ]
        meter = Meter(task.site)
        async with working(consumers, goal):
            await goal.reached
            values = meter.stop(load.jobs * _ATTEMPTS)
    return [Row(Figure.RETRY_PATH, "reprise", load.setting, values)]


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
