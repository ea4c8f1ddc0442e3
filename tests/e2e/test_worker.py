"""Workers on a real broker: own handlers, and worker processes that are killed, drained and cut off."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fixtures_database import MoveClock
from tests.processes import Process
from worker import Client, Job, JobFailed, Worker

StartProcess = Callable[..., Awaitable[Process]]
StartBroker = Callable[[], Awaitable[tuple[Process, str]]]


@dataclass(frozen=True)
class Step:
    """A python step that a test starts and ends through two pipes in the file system."""

    folder: Path

    @property
    def input(self) -> dict[str, str]:
        return {
            "code": f"""
def main(context):
    with open({str(self.folder / "started")!r}, "w") as started:
        started.write(str(context["attempt"]))
    with open({str(self.folder / "may_end")!r}) as may_end:
        return may_end.read()
"""
        }

    async def attempt_started(self) -> int:
        """The number of the attempt that starts next, waited for."""
        return int(await asyncio.to_thread((self.folder / "started").read_text))

    async def end(self, result: str) -> None:
        """Lets the attempt that runs return this."""
        await asyncio.to_thread((self.folder / "may_end").write_text, result)


@pytest.fixture
def step(tmp_path: Path) -> Step:
    for name in ("started", "may_end"):
        os.mkfifo(tmp_path / name)
    return Step(tmp_path)


@pytest.fixture
async def client(broker_address: str) -> AsyncIterator[Client]:
    async with Client(broker_address) as client:
        yield client


async def standing_of(database_url: str, job_id: int) -> tuple[Any, ...]:
    """The job's status, attempts and max_attempts."""
    return await _one(
        database_url, "SELECT status, attempts, max_attempts FROM noetl.queue WHERE queue_id = %s", job_id
    )


async def events_of(database_url: str, job_id: int) -> list[tuple[str, Any]]:
    """The job's events with their results, in order."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await connection.execute(
            "SELECT event_type, result FROM noetl.event WHERE job_id = %s ORDER BY event_id", (job_id,)
        )
        return await rows.fetchall()


async def test_own_handler_fails_twice_and_then_succeeds(
    client: Client, broker_address: str, database_url: str
) -> None:
    worker = Worker(broker_address, queues=["mail"])

    @worker.handler("send-email")
    async def send_email(job: Job) -> dict[str, Any]:
        if job.attempt < 3:
            raise JobFailed("mailbox busy", type="mail.busy", status_code=450, result={"queue": 9})
        worker.stop()
        assert job.last_failure
        return {"sent_to": job.input["to"], "after": job.last_failure.type}

    enqueued = await client.enqueue(
        "send-email",
        {"to": "ann@example.org"},
        queue="mail",
        retry={
            "max_attempts": 5,
            "initial_delay": 0,
            "retry_when": "{{ status_code == 450 and result.queue == 9 }}",
        },
    )
    await worker.serve()
    events = await events_of(database_url, enqueued.job_id)
    assert await standing_of(database_url, enqueued.job_id) == ("done", 3, 5)
    assert [name for name, _ in events] == [
        "job_enqueued",
        *["action_started", "action_error", "action_retry"] * 2,
        "action_started",
        "action_completed",
    ]
    assert events[-1][1] == {"sent_to": "ann@example.org", "after": "mail.busy"}


async def test_worker_process_logs_the_decisions_that_it_is_given(
    client: Client, broker_address: str, database_url: str, start_worker: StartProcess
) -> None:
    worker = await start_worker(broker_address)
    job = await client.enqueue(
        "python",
        {"code": "def main(input_data):\n    raise Exception('Test retry')"},
        retry={"max_attempts": 2, "initial_delay": 0},
    )
    await worker.line_with("verdict=dead")
    decisions = [line for line in worker.lines if "retry policy evaluation" in line]
    assert await standing_of(database_url, job.job_id) == ("dead", 2, 2)
    assert ["verdict=retry" in decisions[0], "reason=attempts_exhausted" in decisions[1]] == [True, True]
    assert len([line for line in worker.lines if "emitted action_retry" in line]) == 1


async def test_job_of_a_killed_worker_runs_again_elsewhere(
    client: Client,
    broker_address: str,
    database_url: str,
    start_worker: StartProcess,
    step: Step,
    move_clock: MoveClock,
) -> None:
    killed = await start_worker(broker_address)
    job = await client.enqueue("python", step.input, retry={"max_attempts": 3, "initial_delay": 0})
    assert await step.attempt_started() == 1
    await killed.stop(signal.SIGKILL)
    other = await start_worker(broker_address, "--log-level", "debug")
    await move_clock(31)
    assert await step.attempt_started() == 2
    await step.end("second time")
    await other.line_with("attempt completed")
    errors = [
        result["error_type"]
        for name, result in await events_of(database_url, job.job_id)
        if name == "action_error"
    ]
    assert await standing_of(database_url, job.job_id) == ("done", 2, 3)
    assert errors == ["lease_expired"]


async def test_job_of_a_worker_that_shuts_down_is_given_back_unused(
    client: Client, broker_address: str, database_url: str, start_worker: StartProcess, step: Step
) -> None:
    leaving = await start_worker(broker_address, "--drain-seconds", "0")
    job = await client.enqueue("python", step.input)
    assert await step.attempt_started() == 1
    assert await leaving.stop(signal.SIGTERM) == 0
    assert await standing_of(database_url, job.job_id) == ("queued", 0, 1)
    other = await start_worker(broker_address, "--log-level", "debug")
    assert await step.attempt_started() == 1
    await step.end("after all")
    await other.line_with("attempt completed")
    assert await standing_of(database_url, job.job_id) == ("done", 1, 1)


async def test_worker_that_shuts_down_lets_its_step_finish(
    client: Client, broker_address: str, database_url: str, start_worker: StartProcess, step: Step
) -> None:
    leaving = await start_worker(broker_address)
    job = await client.enqueue("python", step.input)
    await step.attempt_started()
    leaving.send(signal.SIGTERM)
    await leaving.line_with("draining")
    await step.end("in time")
    assert await leaving.exit_code() == 0
    assert await standing_of(database_url, job.job_id) == ("done", 1, 1)


async def test_attempt_that_takes_too_long_is_killed_and_fails_as_timeout(
    client: Client, broker_address: str, database_url: str, start_worker: StartProcess
) -> None:
    worker = await start_worker(broker_address, "--log-level", "debug")
    job = await client.enqueue(
        "python", {"code": "def main():\n    while True: pass"}, attempt_timeout_seconds=1
    )
    await worker.line_with("attempt failed")
    idle = await client.enqueue("python", {"code": "def main():\n    return 1"})
    await worker.line_with(f"attempt completed job_id={idle.job_id}")
    events = dict(await events_of(database_url, job.job_id))
    assert await standing_of(database_url, job.job_id) == ("dead", 1, 1)
    assert events["action_error"]["error_type"] == "timeout"


async def test_running_step_survives_its_broker(
    start_broker: StartBroker,
    start_process: StartProcess,
    database_url: str,
    start_worker: StartProcess,
    step: Step,
) -> None:
    broker, address = await start_broker()
    worker = await start_worker(address, "--log-level", "debug")
    async with Client(address) as client:
        job = await client.enqueue("python", step.input)
    assert await step.attempt_started() == 1
    await broker.stop(signal.SIGKILL)
    await worker.line_with("lease stream broke")
    await step.end("nobody listens")  # reported once there is a broker again
    again = await start_process("broker.cli", "broker", "--listen", address, "--database-url", database_url)
    await again.line_with("ready listen=")
    await worker.line_with("attempt completed")
    assert await standing_of(database_url, job.job_id) == ("done", 1, 1)


async def _one(database_url: str, query: str, *parameters: Any) -> tuple[Any, ...]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        row = await (await connection.execute(query.encode(), parameters)).fetchone()
        assert row is not None
        return row
