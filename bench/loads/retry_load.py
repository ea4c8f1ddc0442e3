"""The retry path through gRPC: jobs that fail twice and then succeed, each failure decided by an expression."""

import asyncio

import grpc
from google.protobuf.duration_pb2 import Duration
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import broker_service_pb2_grpc, job_pb2, retry_pb2

from bench.loads.grpc_load import fill
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import RESULT, STREAMS, Figure, Load, Task

_ATTEMPTS = 3
_POLICY = retry_pb2.RetryPolicy(
    max_attempts=_ATTEMPTS,
    initial_delay=Duration(nanos=100_000_000),
    backoff_multiplier=1,
    retry_when="{{ error_type == 'bench.flaky' and status_code in [429, 503] }}",
)
_FAILURE = job_pb2.Failure(message="fails twice", type="bench.flaky", status_code=503)


class Consumer:
    """One lease stream that fails every attempt but a job's last."""

    def __init__(self, channel: grpc.aio.Channel, queue: str, load: Load, number: int) -> None:
        self._stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        self._subscription = pb.LeaseRequest(
            queues=[queue], credits=load.credits, worker_id=f"bench-{number}"
        )
        self._writing = asyncio.Lock()  # writes to one stream must not overlap
        self.completed = 0

    async def run(self, progress: asyncio.Event) -> None:
        """Works until it is cancelled; sets `progress` whenever jobs were completed."""
        call = self._stub.Lease(None)
        await call.write(self._subscription)
        async with asyncio.TaskGroup() as finishing:
            async for response in call:
                if response.leases:
                    finishing.create_task(self._finish(call, response, progress))

    async def _finish(
        self,
        call: grpc.aio.StreamStreamCall[pb.LeaseRequest, pb.LeaseResponse],
        response: pb.LeaseResponse,
        progress: asyncio.Event,
    ) -> None:
        last = [lease.lease_token for lease in response.leases if lease.attempt == _ATTEMPTS]
        early = [lease.lease_token for lease in response.leases if lease.attempt < _ATTEMPTS]
        if early:
            await self._fail(early)
        if last:
            completions = [pb.Completion(lease_token=token, result_json=RESULT) for token in last]
            answer = await self._stub.Complete(pb.CompleteRequest(completions=completions))
            assert all(result.outcome == pb.LEASE_OUTCOME_OK for result in answer.results)
            self.completed += len(last)
            progress.set()
        async with self._writing:
            await call.write(pb.LeaseRequest(credits=len(response.leases)))

    async def _fail(self, tokens: list[str]) -> None:
        attempts = [pb.FailedAttempt(lease_token=token, failure=_FAILURE) for token in tokens]
        answer = await self._stub.Fail(pb.FailRequest(attempts=attempts))
        assert all(result.outcome == pb.LEASE_OUTCOME_OK for result in answer.results)


async def measure(task: Task) -> list[Row]:
    """Attempts per second from the first lease of waiting jobs to the last completion; CPU time is that of one attempt."""
    progress = asyncio.Event()
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await fill(channel, task.queue, task.load, _POLICY)
        consumers = [Consumer(channel, task.queue, task.load, number) for number in range(STREAMS)]
        meter = Meter(task.site)
        running = [asyncio.create_task(consumer.run(progress)) for consumer in consumers]
        while sum(consumer.completed for consumer in consumers) < task.load.jobs:
            progress.clear()
            waiting = asyncio.create_task(progress.wait())
            await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
            for one in running:
                if one.done():
                    one.result()
        values = meter.stop(task.load.jobs * _ATTEMPTS)
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return [Row(Figure.RETRY_PATH, "reprise", task.load.setting, values)]


if __name__ == "__main__":
    tell(asyncio.run(measure(Task.from_command_line())))
