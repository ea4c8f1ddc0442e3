"""Drops old jobs, partition by partition: when, how fast, and what if somebody is in the way. What goes is the store's to say."""

import asyncio
import logging

from broker.ids import IDS_PER_SECOND
from broker.store.retention import (
    Busy,
    OldDay,
    copy_survivors,
    drop_executions,
    drop_leftover_tables,
    drop_queue_names,
    find_survivors,
    finish_copy,
    keep_late_events,
    lock,
    oldest_day,
    start_keeping,
    swap,
)
from broker.store.session import Session

_log = logging.getLogger(__name__)

RETENTION_SECONDS = 300.0
# Nobody waits for its statements, and the longest finds what stays among all that waits.
_STATEMENT_TIMEOUT_SECONDS = 300.0
# While a partition is in use it is tried again after so long; each time others may have to wait for a moment.
_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
# Ids of one minute: what one step looks at to begin with; of a second and of a day at the least and the most. A step is to take about
# as long as hot statements do.
_FIRST_SPAN = 60 * IDS_PER_SECOND
_LEAST_SPAN = IDS_PER_SECOND
_LARGEST_SPAN = 86_400 * IDS_PER_SECOND
_STEP_SECONDS = 0.1


class Retention:
    """One pass at each call: all partitions that are old enough go, unless another broker is at it or one of them is in use.

    `days` is the age after which what has ended goes.
    """

    def __init__(self, database_url: str, days: int) -> None:
        self._session = Session(database_url, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
        self._days = days
        self._copied: OldDay | None = None  # what waits to be swapped, while the session's lock is held
        self._retry_seconds = _FIRST_RETRY_SECONDS

    async def __call__(self) -> float:
        """Does what is to be done now; the seconds until the next pass. Raises Unavailable."""
        try:
            if self._copied is not None or await lock(self._session):
                await self._drop_all()
        except Busy as busy:
            return self._wait(busy)
        except BaseException:
            await self.close()
            raise
        self._retry_seconds = _FIRST_RETRY_SECONDS
        await self.close()
        return RETENTION_SECONDS

    async def close(self) -> None:
        """Closes its connection, which lets another broker go on."""
        self._copied = None
        await self._session.close()

    async def _drop_all(self) -> None:
        if self._copied is None:
            await drop_leftover_tables(self._session)
        while old := self._copied or await oldest_day(self._session, self._days):
            if self._copied is None:
                await self._copy(old)
            await keep_late_events(self._session, old)
            await swap(self._session, old)
            self._copied = None
            _log.info("dropped jobs day=%s", old.day)
            await drop_leftover_tables(self._session)
        after: int | None = 0
        while after is not None:
            after = await drop_executions(self._session, after, self._days)
        await drop_queue_names(self._session, self._days)

    async def _copy(self, old: OldDay) -> None:
        """Copies what stays, with a pause as long as each step."""
        await start_keeping(self._session, old)
        await find_survivors(self._session, old, self._days)
        clock = asyncio.get_running_loop()
        span = _FIRST_SPAN
        after: int | None = 0
        while after is not None:
            started_at = clock.time()
            after = await copy_survivors(self._session, old, after, span)
            seconds = clock.time() - started_at
            span = min(span * 2, _LARGEST_SPAN) if seconds < _STEP_SECONDS else max(span // 2, _LEAST_SPAN)
            await asyncio.sleep(seconds)
        await finish_copy(self._session, old)
        self._copied = old

    def _wait(self, busy: Busy) -> float:
        """The seconds until it is tried again; the log says so the first time."""
        if self._retry_seconds == _FIRST_RETRY_SECONDS:
            _log.warning("retention waits, as a partition is in use: error=%r", str(busy))
        seconds = self._retry_seconds
        self._retry_seconds = min(2 * seconds, _LONGEST_RETRY_SECONDS)
        return seconds
