"""Waiting for a condition instead of for a time: by a test, and by a stream of the broker's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.contract.client import PATIENCE_SECONDS, Client, Stream


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once `condition` holds. Raises TimeoutError when it does not for too long."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in the database
            await asyncio.sleep(0.01)


@asynccontextmanager
async def waiting(client: Client, credit: int) -> AsyncIterator[Stream]:
    """A stream whose queue is known to be empty, with so many credits left."""
    await client.enqueue(kind="first")
    async with client.stream(credit + 1) as stream:
        (lease,) = await stream.leases(1)
        await stream.ask(received=[lease.lease_token])
        await client.complete(lease.lease_token)
        yield stream


async def settled(client: Client) -> None:
    """Returns when the broker has done with what came to it before, and has nothing left to look for."""
    async with client.stream(0, queues=["other"]) as probe:
        await probe.rest()
