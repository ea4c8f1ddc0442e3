"""The seed's own test, as its user runs it: its playbook, a broker, a worker, both of its queries and both of its greps."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from reprise.v1 import playbook_service_pb2 as pb

from tests.contract.playbooks.catalog import PlaybookClient
from tests.fixtures_broker import StartProcess
from tests.fixtures_database import MoveClock
from tests.processes import Process

StartBroker = Callable[[], Awaitable[tuple[Process, str]]]

PLAYBOOK = (Path(__file__).parents[2] / "examples" / "retry.yaml").read_text()

# As they stand in the seed.
_QUEUE_QUERY = """
SELECT queue_id, status, attempts, max_attempts, available_at
FROM noetl.queue
WHERE execution_id = <ID>;
"""
_EVENT_QUERY = """
SELECT event_type, node_name, result
FROM noetl.event
WHERE execution_id = <ID>
AND event_type IN ('action_started', 'action_error', 'action_retry', 'action_completed');
"""
_MONITOR = r'cat logs/worker.log | grep -i "retry\|Emitted"'
_GREP = r'grep -i "retry policy evaluation\|emitted action_retry" logs/worker.log'


class Seed:
    """The seed's playbook on a broker and a worker of their own."""

    def __init__(self, playbooks: PlaybookClient, worker: Process, database_url: str, folder: Path) -> None:
        self.worker = worker
        self._playbooks = playbooks
        self._database_url = database_url
        self._folder = folder

    async def run(self, text: str, move_clock: MoveClock) -> pb.Execution:
        """The execution of a playbook once it has ended; the clock is moved over the wait before every retry."""
        registered = await self._playbooks.register(text)
        started = await self._playbooks.start(registered.playbook.path)
        execution = pb.Execution()
        async with asyncio.timeout(60):
            async for update in self._playbooks.watch(started.execution_id):
                if update.event.event_type == "action_retry":
                    await move_clock(10)
                execution.MergeFrom(update.execution)
        return execution

    async def rows(self, query: str, execution: pb.Execution) -> list[tuple[Any, ...]]:
        """The rows of one of the seed's queries."""
        async with await psycopg.AsyncConnection.connect(self._database_url) as connection:
            text = query.replace("<ID>", str(execution.execution_id))
            return await (await connection.execute(text.encode())).fetchall()

    def lines_of(self, command: str) -> list[str]:
        """What a command of the seed prints, run beside the worker's log."""
        (self._folder / "logs").mkdir(exist_ok=True)
        (self._folder / "logs" / "worker.log").write_text("\n".join(self.worker.lines) + "\n")
        shell = shutil.which("sh")
        assert shell is not None
        run = subprocess.run([shell, "-c", command], cwd=self._folder, capture_output=True, text=True)
        return run.stdout.splitlines()


@pytest.fixture
async def seed(
    start_broker: StartBroker, start_worker: StartProcess, database_url: str, tmp_path: Path
) -> AsyncIterator[Seed]:
    """A broker and a worker, each a process."""
    _, address = await start_broker()
    worker = await start_worker(address)
    async with grpc.aio.insecure_channel(address) as channel:
        yield Seed(PlaybookClient(channel), worker, database_url, tmp_path)


async def test_step_that_always_fails_ends_dead_at_three_of_three_as_the_seed_shows_it(
    seed: Seed, move_clock: MoveClock
) -> None:
    execution = await seed.run(PLAYBOOK, move_clock)

    assert (execution.status, execution.failed_step) == (pb.EXECUTION_STATUS_FAILED, "fail_task")
    assert execution.failure.message == "Test retry"
    [(_, status, attempts, max_attempts, available_at)] = await seed.rows(_QUEUE_QUERY, execution)
    assert (status, attempts, max_attempts, available_at) == ("dead", 3, 3, None)
    events = await seed.rows(_EVENT_QUERY, execution)
    assert [(event_type, node_name, result["attempt"]) for event_type, node_name, result in events] == [
        ("action_started", "fail_task", 1),
        ("action_error", "fail_task", 1),
        ("action_retry", "fail_task", 1),
        ("action_started", "fail_task", 2),
        ("action_error", "fail_task", 2),
        ("action_retry", "fail_task", 2),
        ("action_started", "fail_task", 3),
        ("action_error", "fail_task", 3),
    ]
    assert [result["retry_delay_seconds"] for type_, _, result in events if type_ == "action_retry"] == [
        1,
        1.5,
    ]


async def test_both_greps_of_the_seed_find_every_decision_in_the_workers_log(
    seed: Seed, move_clock: MoveClock
) -> None:
    await seed.run(PLAYBOOK, move_clock)
    await seed.worker.line_with("verdict=dead")

    found = seed.lines_of(_GREP)

    assert len([line for line in found if "retry policy evaluation" in line]) == 3
    assert len([line for line in found if "emitted action_retry" in line]) == 2
    assert set(found) <= set(seed.lines_of(_MONITOR))


async def test_five_attempts_wait_as_the_seed_says(seed: Seed, move_clock: MoveClock) -> None:
    text = PLAYBOOK.replace("max_attempts: 3", "max_attempts: 5\n      backoff_multiplier: 1.5")

    execution = await seed.run(text.replace("initial_delay: 1.0", "initial_delay: 2"), move_clock)

    [(_, *standing, _)] = await seed.rows(_QUEUE_QUERY, execution)
    assert standing == ["dead", 5, 5]
    retries = [
        result for type_, _, result in await seed.rows(_EVENT_QUERY, execution) if type_ == "action_retry"
    ]
    assert [result["retry_delay_seconds"] for result in retries] == [2, 3, 4.5, 6.75]
    messages = [line for line in seed.lines_of(_GREP) if "emitted action_retry" in line]
    assert len(messages) == 4


async def test_step_that_fails_twice_and_then_succeeds_goes_on_to_its_end(
    seed: Seed, move_clock: MoveClock
) -> None:
    text = PLAYBOOK.replace(
        'raise Exception("Test retry")',
        'if input_data["context"]["attempt"] < 3: raise Exception("Test retry")\n          return "third time"',
    )

    execution = await seed.run(text, move_clock)

    assert execution.status == pb.EXECUTION_STATUS_COMPLETED
    assert [(step.step, step.attempts) for step in execution.steps] == [
        ("start", 0),
        ("fail_task", 3),
        ("end", 0),
    ]
    [(_, *standing, _)] = await seed.rows(_QUEUE_QUERY, execution)
    assert standing == ["done", 3, 3]
