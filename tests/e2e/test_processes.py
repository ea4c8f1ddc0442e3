"""`reprise broker --processes`: one broker to its clients, whatever becomes of one of its processes."""

import signal
from collections.abc import Awaitable, Callable

import grpc
import psutil
import pytest

from tests.contract.client import Client
from tests.contract.waiting import eventually
from tests.fixtures_broker import StartProcess
from tests.processes import Process

StartTwo = Callable[[], Awaitable[tuple[Process, str]]]
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture
def start_two(start_process: StartProcess, empty_database_url: str) -> StartTwo:
    """Starts a broker of two processes on an empty database; returns it and its HOST:PORT once it serves."""

    async def start() -> tuple[Process, str]:
        broker = await start_process(
            "broker.cli", "broker", "--listen", "127.0.0.1:0", "--database-url", empty_database_url,
            "--migrate", "--processes", "2",
        )  # fmt: skip
        line = await broker.line_with("ready listen=")
        return broker, line.partition("ready listen=")[2].split()[0]

    return start


def _members(broker: Process) -> list[psutil.Process]:
    return psutil.Process(broker.pid).children()


async def test_what_is_enqueued_on_any_connection_is_leased_on_any_other(start_two: StartTwo) -> None:
    _, address = await start_two()

    for _ in range(8):
        async with (
            grpc.aio.insecure_channel(address, _OWN_CONNECTION) as one,
            grpc.aio.insecure_channel(address, _OWN_CONNECTION) as other,
        ):
            job_id = await Client(one).enqueue()
            assert (await Client(other).lease()).job_id == job_id


async def test_it_says_once_that_it_is_ready_and_stops_without_leaving_a_process(start_two: StartTwo) -> None:
    broker, _ = await start_two()
    members = _members(broker)
    assert len(members) == 2

    assert await broker.stop() == 0

    assert len([line for line in broker.lines if "ready listen=" in line]) == 1
    assert len([line for line in broker.lines if "migrated" in line and "0001" in line]) == 1
    assert not [member for member in members if member.is_running()]


async def test_a_process_that_dies_is_started_again_while_the_other_serves(start_two: StartTwo) -> None:
    broker, address = await start_two()
    _members(broker)[0].kill()

    await broker.line_with("ended code=-9")
    async with grpc.aio.insecure_channel(address, _OWN_CONNECTION) as channel:
        await channel.channel_ready()
        assert await Client(channel).enqueue()

    await broker.line_with("process=1 serves again")
    assert len(_members(broker)) == 2


async def test_killing_it_ends_every_process(start_two: StartTwo) -> None:
    broker, _ = await start_two()
    members = _members(broker)

    await broker.stop(signal.SIGKILL)

    await eventually(lambda: _all_gone(members))


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_another_broker_on_its_port_is_refused(
    start_two: StartTwo, start_process: StartProcess, empty_database_url: str, processes: str
) -> None:
    _, address = await start_two()

    second = await start_process(
        "broker.cli", "broker", "--listen", address, "--database-url", empty_database_url, "--processes", processes
    )  # fmt: skip

    assert await second.exit_code() == 1
    assert any(f"cannot listen on {address}" in line for line in second.lines)


async def test_what_is_wrong_is_said_once(start_process: StartProcess, empty_database_url: str) -> None:
    broker = await start_process(
        "broker.cli", "broker", "--listen", "127.0.0.1:0", "--database-url", empty_database_url, "--processes", "2"
    )  # fmt: skip

    assert await broker.exit_code() == 1
    assert len([line for line in broker.lines if "reprise migrate" in line]) == 1


async def _all_gone(members: list[psutil.Process]) -> bool:
    return not any(member.is_running() for member in members)
