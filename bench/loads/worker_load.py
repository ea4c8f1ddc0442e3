"""The Python worker: jobs that one worker process runs by handlers that do nothing, and how long a trivial python step takes.

The jobs are waiting before the worker starts, so the load's CPU time is the worker's alone.
"""

import asyncio
import itertools
import logging
import time
from typing import Any

import grpc

from bench.loads.grpc_load import fill
from bench.measurement import Row, tell
from bench.metering import Meter
from bench.report.medians import percentiles
from bench.workload import KIND, Task
from worker import Job, Worker
from worker.executors.python_step import PythonStep

_HANDLERS = "no-op handlers of one worker process"
_STEP = "trivial python step"
_STEPS = 300


class Countdown:
    """Stops a worker after so many jobs."""

    def __init__(self, worker: Worker, jobs: int) -> None:
        self._worker = worker
        self._jobs = jobs
        self._numbers = itertools.count(1)  # counts rightly in threads, too

    def count(self, job: Job) -> dict[str, int]:
        """One job more is done; what it results in."""
        if next(self._numbers) == self._jobs:
            self._worker.stop()
        return {"job": job.job_id}


async def handle_all(task: Task, kind_of_handler: str, queue: str, concurrency: int) -> Row:
    """Jobs per second from the worker's start to its last report."""
    async with grpc.aio.insecure_channel(task.site.address) as channel:
        await fill(channel, queue, task.load)
    worker = Worker(task.site.address, queues=[queue], concurrency=concurrency)
    countdown = Countdown(worker, task.load.jobs)

    async def coroutine(job: Job) -> Any:
        return countdown.count(job)

    def function(job: Job) -> Any:
        return countdown.count(job)

    worker.handler(KIND)(coroutine if kind_of_handler == "coroutine" else function)
    meter = Meter(task.site)
    await worker.serve()
    setting = f"{kind_of_handler}, concurrency {concurrency}"
    return Row(_HANDLERS, "reprise", setting, meter.stop(task.load.jobs))


async def run_steps() -> Row:
    """From the claim of a job by the executor to its result, one after the other."""
    milliseconds = []
    async with PythonStep({}) as step:
        for number in range(_STEPS + 1):
            job = Job(
                1, "bench", "python", 1, 1, {"code": "def main(x):\n    return x", "data": {"x": number}}
            )
            started = time.perf_counter()
            assert await step.execute(job) == number
            milliseconds.append((time.perf_counter() - started) * 1000)
    # The first one waits for the imports of its parent, which a worker does before it has leases.
    return Row(_STEP, "reprise", "one after the other", percentiles(milliseconds[1:]))


async def measure(task: Task) -> list[Row]:
    """A row for each way to run a job."""
    rows = []
    for kind, concurrency in (("coroutine", 1000), ("coroutine", 10), ("function", 1000)):
        rows.append(await handle_all(task, kind, f"{task.queue}-{kind}-{concurrency}", concurrency))
    rows.append(await run_steps())
    return rows


if __name__ == "__main__":
    # What `reprise worker` logs by default, written to nowhere but as costly as to a file.
    logging.basicConfig(level=logging.INFO, filename="/dev/null")
    tell(asyncio.run(measure(Task.from_command_line())))
