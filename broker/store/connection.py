"""How every connection of a running broker is made, and how long it waits for a server that has gone without a word.

A server that loses its power, or the way to it, closes no connection. Left to the kernel, a statement would then wait for a quarter of an
hour, and who only listens for two. Must not know any statement.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

# A host that answers nothing, not even the kernel's probes, is given up after some 11 s (milliseconds in the last one). Without effect
# on a Unix socket.
_BOUNDS: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# What a server that is there takes at most to cancel a statement whose time is over, and to say so.
LATE_SECONDS = 5.0

T = TypeVar("T")


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection that hangs up where an answer takes longer than `answer_seconds`: its server is frozen, though its kernel may answer."""

    answer_seconds = 60.0
    # One timer for many exchanges: one of its own for each would cost some 4 us (measured 2026-11).
    _asked_at: float | None = None  # on the loop's clock; None: nothing is waited for
    _next_look: asyncio.TimerHandle | None = None

    async def wait(self, gen: PQGen[T], *arguments: Any, **options: Any) -> T:
        """What one exchange with the server brings. Raises OperationalError where that takes too long."""
        self._asked_at = asyncio.get_running_loop().time()
        if self._next_look is None:
            self._look_in(self.answer_seconds)
        try:
            return await super().wait(gen, *arguments, **options)
        finally:
            self._asked_at = None

    def _look_in(self, seconds: float) -> None:
        self._next_look = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Ends an exchange that takes too long as if the server had closed the connection: it would not hear that it is to cancel."""
        self._next_look = None
        if self._asked_at is None or self.closed:
            return
        left = self._asked_at + self.answer_seconds - asyncio.get_running_loop().time()
        if left > 0:
            self._look_in(left)
        else:
            # It may just have gone by itself.
            with suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)


def bounds_of(database_url: str) -> dict[str, int]:
    """The bounds of a connection to this database, but for those that the URL sets itself. Raises ProgrammingError where it is none."""
    given = conninfo_to_dict(database_url)
    return {name: value for name, value in _BOUNDS.items() if name not in given}


async def connect(database_url: str, *, statement_seconds: float, **parameters: str) -> Connection:
    """A connection, in autocommit, that hangs up where a statement takes longer than it may, `statement_seconds`, and the server does not
    say so. Raises OperationalError.
    """
    everything: dict[str, Any] = {**bounds_of(database_url), **parameters}
    connection = await Connection.connect(database_url, autocommit=True, **everything)
    connection.answer_seconds = statement_seconds + LATE_SECONDS
    return connection
