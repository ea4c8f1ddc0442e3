"""A broker that is killed while it drops old jobs loses none that lives, and leaves nothing for another to stumble over."""

import signal
from collections.abc import Awaitable, Callable

import grpc

from tests.contract.client import OK, Client
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock
from tests.postgres.test_retention import reading
from tests.processes import Process

_NINE_DAYS = 9 * 86_400.0


async def test_another_broker_goes_on(
    start_broker: Callable[[], Awaitable[tuple[Process, str]]],
    tables: Tables,
    move_clock: MoveClock,
    database_url: str,
) -> None:
    first, address = await start_broker()
    async with grpc.aio.insecure_channel(address) as channel:
        client = Client(channel)
        done = await client.enqueue(queue="done")
        await client.complete((await client.lease(queues=["done"])).lease_token)
        waits = await client.enqueue(queue="waits")
    story = await tables.events(waits)

    async with reading(database_url):
        await move_clock(_NINE_DAYS)
        await first.line_with("retention waits")
        await first.stop(signal.SIGKILL)
        second, address = await start_broker()
        await second.line_with("retention waits")

    async def old_job_is_gone() -> bool:
        return await tables.rows("SELECT queue_id FROM noetl.queue") == [(waits,)]

    await eventually(old_job_is_gone)
    assert await tables.events(done) == []
    assert await tables.events(waits) == story
    async with grpc.aio.insecure_channel(address) as channel:
        client = Client(channel)
        lease = await client.lease(queues=["waits"])
        assert (lease.job_id, await client.complete(lease.lease_token)) == (waits, OK)
