"""Procrastinate as a peer: enqueues and works no-op jobs in one process, and says when each stretch begins and ends.

With psycopg's binary build, batches deferred by one call, and many jobs at once in the worker, which fetches and finishes them one by one.
It keeps a row and three events for each job; its delays are whole seconds. It talks to PostgreSQL without a server in between.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy

CONCURRENCY = 50
PRODUCERS = 2
ATTEMPTS = 3
# The shortest that makes sense: due jobs are found by polling only.
POLL_SECONDS = 0.1

task: dict[str, Any] = json.loads(sys.argv[1])
app = App(connector=PsycopgConnector(conninfo=task["database_url"], min_size=20, max_size=20))
handled = 0
progress = asyncio.Event()
arrivals: asyncio.Queue[float] = asyncio.Queue()


def say(**message: Any) -> None:
    """One line for the process that started this one."""
    print(json.dumps(message), flush=True)


def end(figure: str, jobs: int) -> None:
    """A stretch is over; waits for a line, as until then the process is metered."""
    say(end=figure, jobs=jobs)
    sys.stdin.readline()


async def noop(payload: str) -> None:
    """Counts."""
    global handled
    handled += 1
    arrivals.put_nowait(time.perf_counter())
    progress.set()


async def flaky(context: JobContext, payload: str) -> None:
    """Fails but for the last time."""
    global handled
    handled += 1
    progress.set()
    assert context.job is not None
    if context.job.attempts < ATTEMPTS - 1:
        raise RuntimeError("fails on purpose")


app.task(name="noop")(noop)
app.task(name="flaky", pass_context=True, retry=RetryStrategy(max_attempts=ATTEMPTS, wait=0))(flaky)


def work() -> "asyncio.Task[None]":
    """Starts the worker; it ends with the process."""
    return asyncio.create_task(
        app.run_worker_async(
            concurrency=CONCURRENCY, fetch_job_polling_interval=POLL_SECONDS, install_signal_handlers=False
        )
    )


async def fill(name: str = "noop") -> None:
    """Defers all jobs in batches."""
    jobs = [{"payload": task["payload"]}] * task["batch"]

    async def produce() -> None:
        for _ in range(task["jobs"] // PRODUCERS // task["batch"]):
            await app.configure_task(name).batch_defer_async(*jobs)

    await asyncio.gather(*(produce() for _ in range(PRODUCERS)))


async def finish(attempts: int = 1) -> None:
    """Returns when every job was handled so often, and its end is in the database."""
    while handled < task["jobs"] * attempts:
        progress.clear()
        await progress.wait()
    unfinished = "SELECT count(*) AS count FROM procrastinate_jobs WHERE status <> 'succeeded'"
    while (await app.connector.execute_query_one_async(unfinished))["count"]:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def batches() -> None:
    """Enqueue, then burn-down of the same jobs."""
    say(begin=True)
    await fill()
    end("enqueue", task["jobs"])
    say(begin=True)
    working = work()
    await finish()
    end("burn-down", task["jobs"])
    working.cancel()


async def mixed() -> None:
    """Both at once."""
    working = work()
    say(begin=True)
    await fill()
    await finish()
    end("mixed lifecycles", task["jobs"])
    working.cancel()


async def one_by_one() -> None:
    """One job per statement, by many callers."""
    calls = task["jobs"] // task["callers"]

    async def call() -> None:
        for _ in range(calls):
            await app.configure_task("noop").defer_async(payload=task["payload"])

    say(begin=True)
    await asyncio.gather(*(call() for _ in range(task["callers"])))
    end("enqueue, one job per call", calls * task["callers"])


async def start() -> None:
    """From the call of defer to the handler, one job at a time."""
    working = work()
    await asyncio.sleep(1)
    waits = []
    for _ in range(task["jobs"]):
        await asyncio.sleep(random.uniform(0.005, 0.025))
        started = time.perf_counter()
        await app.configure_task("noop").defer_async(payload=task["payload"])
        waits.append((await arrivals.get() - started) * 1000)
    say(waits="enqueue to start, at rest", milliseconds=waits)
    working.cancel()


async def retry_path() -> None:
    """Jobs that fail twice and then succeed, at once: it has no delay of a tenth of a second."""
    await fill("flaky")
    say(begin=True)
    working = work()
    await finish(ATTEMPTS)
    end("retry path", task["jobs"] * ATTEMPTS)
    working.cancel()


FIGURES = {
    "batches": batches,
    "mixed": mixed,
    "one by one": one_by_one,
    "start": start,
    "retry path": retry_path,
}


async def main() -> None:
    """Runs the stretch that was asked for, on tables made anew; what it cannot be asked it leaves out."""
    if (figure := FIGURES.get(task["figure"])) is None:
        return
    async with app.open_async():
        await app.connector.execute_query_async("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await app.schema_manager.apply_schema_async()
        await figure()


if __name__ == "__main__":
    asyncio.run(main())
