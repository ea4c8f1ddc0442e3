"""Hears what PostgreSQL's NOTIFY says. Hints only: a broker that hears nothing still finds everything by sweeping.

While its connection stands the database is there; who wants to know is told when it goes and comes back. Must not know what a hint says.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol

import psycopg

from broker.store.connection import Connection, connect
from broker.store.hints import CHANNEL, name_of
from broker.store.session import STATEMENT_TIMEOUT_SECONDS

_log = logging.getLogger(__name__)

# Said when the clock of noetl.clock() was moved, as tests do: every timer looks again.
CLOCK_CHANNEL = "reprise_clock"
_RECONNECT_SECONDS = 1.0


class Hearer(Protocol):
    """Who is told."""

    def clock_moved(self) -> None:
        """The clock of noetl.clock() was moved."""

    def heard(self, text: str) -> None:
        """A broker of this database has said `text`; it may be this one."""

    async def listening(self, *, now: bool) -> None:
        """It begins to hear (now), or has ceased to."""


class Listener:
    """One connection that hears, for one broker."""

    def __init__(self, database_url: str, broker_id: str, hearer: Hearer) -> None:
        self._database_url = database_url
        self._broker_id = broker_id
        self._hearer = hearer

    async def run(self) -> None:
        """Listens until it is cancelled; connects again when the connection is lost."""
        while True:
            try:
                await self._listen()
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                _log.warning("not listening error=%r", str(error).strip())
            await self._hearer.listening(now=False)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await connect(
            self._database_url,
            statement_seconds=STATEMENT_TIMEOUT_SECONDS,
            application_name=name_of(self._broker_id),
        )
        async with connection:
            for statement in (f"LISTEN {CLOCK_CHANNEL}", f"LISTEN {CHANNEL}"):
                await connection.execute(statement.encode())
            await self._hearer.listening(now=True)
            async for notice in _notices(connection):
                if notice.channel == CLOCK_CHANNEL:
                    self._hearer.clock_moved()
                else:
                    self._hearer.heard(notice.payload)


async def _notices(connection: Connection) -> AsyncIterator[psycopg.Notify]:
    """What is said, as it comes. psycopg's own wait would wake up ten times a second."""
    while True:
        async for notice in connection.notifies(timeout=0):
            yield notice
        await _readable(connection.fileno())


async def _readable(descriptor: int) -> None:
    """Returns when there is something to read, or the other side has gone."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
