"""Brokers for tests: one inside the test's process, whose timers can be moved on, or real processes that can be killed."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from broker.config import BrokerConfig
from tests.processes import Process

StartProcess = Callable[..., Awaitable[Process]]
MoveTimers = Callable[[float], None]


@pytest.fixture
async def broker_address(database_url: str) -> AsyncIterator[str]:
    """HOST:PORT of a broker that runs in this process on this test's database."""
    from broker.server import running  # a unit test must not need the whole broker

    async with running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address:
        yield address


@pytest.fixture
async def channel(broker_address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel with default limits to `broker_address`."""
    async with grpc.aio.insecure_channel(broker_address) as opened:
        yield opened


@pytest.fixture
async def move_timers(monkeypatch: pytest.MonkeyPatch) -> MoveTimers:
    """Moves the event loop's clock ahead by that many seconds: who waits in this process for no longer than that, goes on at once.

    The database's clock stays. The loop's goes back at the end of the test: brokers that were moved on must have ended by then.
    """
    loop = asyncio.get_running_loop()
    time = loop.time
    moved_seconds = 0.0

    def move(seconds: float) -> None:
        nonlocal moved_seconds
        moved_seconds += seconds

    monkeypatch.setattr(loop, "time", lambda: time() + moved_seconds)
    return move


@pytest.fixture
async def start_process() -> AsyncIterator[StartProcess]:
    """Starts `python -m MODULE ARGUMENTS…` as a real process; what still runs at the end of the test is killed."""
    started: list[Process] = []

    async def start(module: str, *arguments: str) -> Process:
        process = await Process.start(module, *arguments)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        await process.stop(signal.SIGKILL)


@pytest.fixture
def start_broker(
    start_process: StartProcess, database_url: str
) -> Callable[[], Awaitable[tuple[Process, str]]]:
    """Starts a broker process on this test's database; returns it and its HOST:PORT once it serves."""

    async def start() -> tuple[Process, str]:
        process = await start_process(
            "broker.cli", "broker", "--listen", "127.0.0.1:0", "--database-url", database_url
        )
        line = await process.line_with("ready listen=")
        return process, line.partition("ready listen=")[2].split()[0]

    return start


@pytest.fixture
def start_worker(start_process: StartProcess) -> StartProcess:
    """Starts a worker process for the broker at an address, with further arguments; returns it once its stream is open."""

    async def start(address: str, *arguments: str) -> Process:
        process = await start_process("worker", "--broker", address, *arguments)
        await process.line_with("ready worker_id=")
        return process

    return start
