"""A broker that is gone from one moment to the next takes nothing with it: another one finds what it held."""

import signal
from collections.abc import Awaitable, Callable

import grpc

from tests.contract.client import OK, Client, new_job, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock
from tests.processes import Process

StartBroker = Callable[[], Awaitable[tuple[Process, str]]]


async def test_leases_of_a_killed_broker_expire_at_another_and_cost_their_attempt(
    start_broker: StartBroker, channel: grpc.aio.Channel, tables: Tables, move_clock: MoveClock
) -> None:
    process, address = await start_broker()
    async with grpc.aio.insecure_channel(address) as doomed:
        client = Client(doomed)
        received, unreceived = [
            job.job_id
            for job in await client.enqueue_all(
                *(new_job(retry=retry(initial_delay=600, max_delay=600)) for _ in range(2))
            )
        ]
        async with client.stream(2, lease_seconds=30) as stream:
            first, _ = await stream.leases(2)
            await stream.ask(received=[first.lease_token])
            await process.stop(signal.SIGKILL)
            assert (await stream.end()).code() == grpc.StatusCode.UNAVAILABLE
    assert [await tables.standing(job_id) for job_id in (received, unreceived)] == ["leased 1/3"] * 2

    await move_clock(31)

    async def both_wait() -> bool:
        return {await tables.standing(job_id) for job_id in (received, unreceived)} == {"retry 1/3"}

    await eventually(both_wait)
    await move_clock(600)
    survivor = Client(channel)
    leases = [await survivor.lease(), await survivor.lease()]
    assert {(lease.job_id, lease.attempt) for lease in leases} == {(received, 2), (unreceived, 2)}


async def test_a_worker_of_a_killed_broker_completes_at_another(
    start_broker: StartBroker, channel: grpc.aio.Channel, tables: Tables
) -> None:
    process, address = await start_broker()
    async with grpc.aio.insecure_channel(address) as doomed:
        job_id = await Client(doomed).enqueue()
        token = (await Client(doomed).lease()).lease_token
        await process.stop(signal.SIGKILL)

    assert await Client(channel).complete(token) == OK
    assert await tables.standing(job_id) == "done 1/1"


async def test_a_broker_that_is_told_to_stop_gives_back_what_was_not_received(
    start_broker: StartBroker, channel: grpc.aio.Channel, tables: Tables
) -> None:
    process, address = await start_broker()
    async with grpc.aio.insecure_channel(address) as leaving:
        client = Client(leaving)
        job_id = await client.enqueue()
        async with client.stream(1) as stream:
            await stream.leases(1)

            code = await process.stop(signal.SIGTERM)

    assert code == 0
    assert await tables.standing(job_id) == "queued 0/1"
    assert (await Client(channel).lease()).attempt == 1
