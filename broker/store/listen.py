"""Hears what PostgreSQL's NOTIFY says. Hints only: a broker that hears nothing still finds everything by sweeping."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg

_log = logging.getLogger(__name__)

# Said when the clock of noetl.clock() was moved, as tests do: every timer looks again.
CLOCK_CHANNEL = "reprise_clock"
_RECONNECT_SECONDS = 1.0


class Listener:
    """Calls `wakes` whenever the clock was moved."""

    def __init__(self, database_url: str, wakes: Sequence[Callable[[], None]]) -> None:
        self._database_url = database_url
        self._wakes = wakes

    async def run(self) -> None:
        """Listens until it is cancelled; connects again when the connection is lost."""
        while True:
            try:
                await self._listen()
            except psycopg.OperationalError as error:
                _log.warning("not listening error=%r", str(error).strip())
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._database_url, autocommit=True)
        async with connection:
            await connection.execute(f"LISTEN {CLOCK_CHANNEL}".encode())
            async for _ in connection.notifies():
                for wake in self._wakes:
                    wake()
