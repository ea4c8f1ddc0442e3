"""One connection to PostgreSQL for one actor of the broker, made anew when it breaks.

Owns how the broker connects: planner settings that keep hot statements on their plans, the statement timeout, and the translation
of a lost database into `Unavailable`. Must not know any statement. One actor uses one session, one statement at a time.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import errors as pg_errors
from psycopg.pq import TransactionStatus

from broker.errors import Unavailable
from broker.store.arrays import teach_arrays
from broker.store.connection import Connection, connect

# Generic plans, made without statistics of the lanes, cannot flip when a table is seen empty or huge
# (a lease statement went from 8 to 26 ms that way; River's from 15 000 to 1 000 jobs/s). Nested loops stay where a LATERAL asks for one.
_SETTINGS: Mapping[str, str] = {
    "application_name": "reprise",
    "search_path": "noetl,pg_catalog",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # Statements are written for it: each sees what was committed before it.
    "default_transaction_isolation": r"read\ committed",
    "timezone": "UTC",
    # A broker that is frozen, not dead, must not keep rows locked from the others for ever.
    "idle_in_transaction_session_timeout": "60s",
}
STATEMENT_TIMEOUT_SECONDS = 5
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
# A server that only reads is not the one that the broker needs: it was, or will be, but is a standby now.
_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    pg_errors.IdleInTransactionSessionTimeout,
    pg_errors.ReadOnlySqlTransaction,
)

Row = tuple[Any, ...]
_log = logging.getLogger(__name__)


class Session:
    """A connection that is opened on first use, and again after it was lost. Not for two tasks at once."""

    def __init__(
        self, database_url: str, *, statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS
    ) -> None:
        self._database_url = database_url
        self._statement_timeout_seconds = statement_timeout_seconds
        self._connection: Connection | None = None

    async def rows(self, statement: str, arguments: Sequence[object] = ()) -> list[Row]:
        """All rows of one statement, values in PostgreSQL's binary format; committed when it returns, outside `transaction`.

        Raises Unavailable when the database cannot be reached or takes longer than the statement timeout: whether the
        statement took effect is then not known.
        """
        connection = await self._connected()
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(statement.encode(), arguments, prepare=True)
            return await cursor.fetchall() if cursor.description else []
        except pg_errors.SerializationFailure:
            raise
        except _AWAY as error:
            await self._drop_if_lost(error)
            raise Unavailable("the database is away") from error

    async def row(self, statement: str, arguments: Sequence[object] = ()) -> Row | None:
        """The first row of one statement, or None; otherwise like `rows`."""
        found = await self.rows(statement, arguments)
        return found[0] if found else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """What is run inside commits together at the end, or not at all when it raises."""
        connection = await self._connected()
        try:
            async with connection.transaction():
                yield
        except pg_errors.SerializationFailure:
            raise
        except _AWAY as error:
            await self._drop_if_lost(error)
            raise Unavailable("the database is away") from error

    @property
    def in_transaction(self) -> bool:
        """Whether statements wait for the end of `transaction` to be committed."""
        return (
            self._connection is not None
            and self._connection.info.transaction_status != TransactionStatus.IDLE
        )

    async def close(self) -> None:
        """Closes the connection; a later call opens a new one."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        timeout = f"-c statement_timeout={int(self._statement_timeout_seconds * 1000)}"
        try:
            self._connection = await connect(
                self._database_url,
                statement_seconds=self._statement_timeout_seconds,
                options=f"{options} {timeout}",
            )
        except _AWAY as error:
            raise Unavailable("the database is away") from error
        teach_arrays(self._connection)
        return self._connection

    async def _drop_if_lost(self, error: Exception) -> None:
        """Forgets a connection that is broken or leads to a standby; one whose statement was merely cancelled is kept."""
        if self._connection is not None and (
            self._connection.closed
            or self._connection.broken
            or isinstance(error, pg_errors.ReadOnlySqlTransaction)
        ):
            await self.close()


async def wait_until_reachable(database_url: str, wait_seconds: float) -> None:
    """Returns when the database answers. Raises Unavailable when it did not for so many seconds, saying why."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + wait_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            connection = await connect(database_url, statement_seconds=STATEMENT_TIMEOUT_SECONDS)
        except _AWAY as error:
            left = give_up_at - loop.time()
            if left <= 0:
                raise Unavailable(f"the database cannot be reached: {str(error).strip()}") from error
            pause = min(pause, left)
            why = str(error).strip().partition("\n")[0]
            _log.warning("waiting for the database tries_again_in_seconds=%.1f error=%r", pause, why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            await connection.close()
            return
