"""A broker that is killed at any moment, again and again, leaves executions that go on."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import grpc
import pytest
from reprise.v1.job_pb2 import Lease

from tests.contract.client import Client
from tests.contract.playbooks.catalog import PlaybookClient, playbook, python_step
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_broker import StartProcess
from tests.fixtures_database import MoveClock
from tests.processes import Process

StartBroker = Callable[[], Awaitable[tuple[Process, str]]]
Answer = TypeVar("Answer")

EXECUTIONS = 10
KILLS = 5
WORKERS = 4
_LEASE_SECONDS = 20
_RETRY = ", retry: {max_attempts: 20, initial_delay: 0}"
DIAMOND = playbook(
    "- {step: start, next: [left, right]}\n"
    + python_step("left", "[join]", _RETRY)
    + python_step("right", "[join]", _RETRY)
    + python_step("join", "[last]", _RETRY)
    + python_step("last", "[end]", _RETRY)
    + "- step: end"
)
_STEPS = 4


def _broke_while_sending(error: grpc.aio.AioRpcError) -> bool:
    """Whether the connection went while this client wrote to it: its own gRPC calls that INTERNAL, no server said so."""
    return error.code() is grpc.StatusCode.INTERNAL and "execute_batch" in (error.debug_error_string() or "")


class MortalBroker:
    """A broker process at one address: killed and started again there. `completed` counts the Completes it has answered."""

    def __init__(self, process: Process, address: str, restart: Callable[[], Awaitable[Process]]) -> None:
        self.completed = asyncio.Semaphore(0)
        self._process = process
        self._address = address
        self._restart = restart
        self._up = asyncio.Event()
        self._up.set()

    async def kill(self) -> None:
        """SIGKILL in the middle of whatever it does; returns when another serves."""
        self._up.clear()
        await self._process.stop(signal.SIGKILL)
        self._process = await self._restart()
        self._up.set()

    async def insist(self, call: Callable[[grpc.aio.Channel], Awaitable[Answer]]) -> Answer:
        """The answer to a call that is repeated as long as the broker is away."""
        while True:
            await self._up.wait()
            async with grpc.aio.insecure_channel(self._address) as channel:
                try:
                    return await call(channel)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE and not _broke_while_sending(error):
                        raise

    async def start(self, key: str) -> int:
        """An execution that is started once, however often the broker is killed meanwhile."""
        started = await self.insist(lambda channel: PlaybookClient(channel).start(key=key))
        return started.execution_id

    async def work(self) -> None:
        """A worker that completes whatever it gets, until it is cancelled."""
        while True:
            leases: list[Lease] = await self.insist(
                lambda channel: Client(channel).poll(2, wait=1, lease_seconds=_LEASE_SECONDS)
            )
            for lease in leases:
                await self._complete(lease)

    async def _complete(self, lease: Lease) -> None:
        await self.insist(lambda channel: Client(channel).complete(lease.lease_token))
        self.completed.release()


@pytest.fixture
async def broker(start_broker: StartBroker, start_process: StartProcess, database_url: str) -> MortalBroker:
    """A broker to be killed."""
    process, address = await start_broker()

    async def restart() -> Process:
        again = await start_process(
            "broker.cli", "broker", "--listen", address, "--database-url", database_url
        )
        await again.line_with("ready listen=")
        return again

    return MortalBroker(process, address, restart)


async def test_executions_go_on_whenever_the_broker_is_killed(
    broker: MortalBroker, tables: Tables, move_clock: MoveClock
) -> None:
    await broker.insist(lambda channel: PlaybookClient(channel).register(DIAMOND))
    starts = [asyncio.ensure_future(broker.start(str(number))) for number in range(EXECUTIONS)]
    workers = [asyncio.ensure_future(broker.work()) for _ in range(WORKERS)]

    for _ in range(KILLS):
        for _ in range(EXECUTIONS * _STEPS // (KILLS + 2)):
            await broker.completed.acquire()
        await broker.kill()
        # What was delivered to nobody is found when its lease expires.
        await move_clock(_LEASE_SECONDS + 1)

    async def all_ended() -> bool:
        return not await tables.rows("SELECT execution_id FROM noetl.execution WHERE status = 'running'")

    started = await asyncio.gather(*starts)
    await eventually(all_ended)
    for worker in workers:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    ended = await tables.rows("SELECT execution_id, status FROM noetl.execution")
    assert sorted(ended) == [(execution_id, "completed") for execution_id in sorted(started)]
    jobs = await tables.rows(
        """SELECT execution_id, step, count(DISTINCT job_id),
          (SELECT count(*) FROM noetl.event e WHERE e.execution_id = job.execution_id AND e.node_name = job.step
            AND event_type IN ('action_completed', 'job_dead'))
        FROM noetl.job GROUP BY execution_id, step"""
    )
    assert len(jobs) == EXECUTIONS * _STEPS
    assert {(count, terminal_events) for _, _, count, terminal_events in jobs} == {(1, 1)}
    ends = await tables.rows(
        """SELECT execution_id, count(*) FROM noetl.event
        WHERE event_type IN ('execution_completed', 'step_started') GROUP BY execution_id"""
    )
    assert {count for _, count in ends} == {1 + _STEPS + 2}
