"""Waiting for a condition instead of for a time."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.contract.client import PATIENCE_SECONDS


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once `condition` holds. Raises TimeoutError when it does not for too long."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in the database
            await asyncio.sleep(0.01)
