"""Keeps the database in shape, a little at a time. Every broker does; the statements bear being run by several."""

import logging
from collections.abc import Awaitable, Callable

from broker.errors import Unavailable
from broker.ids import IDS_PER_MILLISECOND, IDS_PER_SECOND
from broker.store.session import Session
from broker.store.upkeep import (
    drop_leftovers,
    ensure_partitions,
    free_execution_keys,
    free_keys,
    summarize_events,
)

MAINTENANCE_SECONDS = 60.0
_RETRY_SECONDS = 5.0
# What was left undone for long may take longer than a hot statement may.
_STATEMENT_TIMEOUT_SECONDS = 60.0
# Ids of one second, at least of a millisecond and at most of a day: how far keys are freed by one statement to begin with; and by how
# many statements in one round. A statement is to meet so many ends: whoever uses one of those keys just then waits for it.
_FIRST_SPAN = IDS_PER_SECOND
_LEAST_SPAN = IDS_PER_MILLISECOND
_LARGEST_SPAN = 86_400 * IDS_PER_SECOND
_SPANS_PER_ROUND = 1_000
_ENDS_PER_SPAN = 5_000

_log = logging.getLogger(__name__)


class Maintenance:
    """One round of upkeep at each call. A task that fails is tried again soon, and holds up no other."""

    def __init__(self, database_url: str) -> None:
        self._session = Session(database_url, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
        self._span = _FIRST_SPAN
        self._failing: set[str] = set()

    async def __call__(self) -> float:
        """Does what is to be done now; the seconds until the next round."""
        await self._try("partitions", ensure_partitions)
        await self._try("leftovers", drop_leftovers)
        await self._try("execution keys", free_execution_keys)
        await self._try("summaries", summarize_events)
        await self._try("keys", self._free_keys)
        return _RETRY_SECONDS if self._failing else MAINTENANCE_SECONDS

    async def close(self) -> None:
        """Closes its connection."""
        await self._session.close()

    async def _try(self, name: str, task: Callable[[Session], Awaitable[None]]) -> None:
        """Runs one task; the log says when it begins to fail and when that is over."""
        try:
            await task(self._session)
        except Exception as error:
            if name not in self._failing:
                is_expected = isinstance(error, Unavailable)
                _log.warning("upkeep task=%r waits error=%r", name, str(error), exc_info=not is_expected)
            self._failing.add(name)
        else:
            if name in self._failing:
                self._failing.remove(name)
                _log.info("upkeep task=%r goes on", name)

    async def _free_keys(self, session: Session) -> None:
        for _ in range(_SPANS_PER_ROUND):
            freed = await free_keys(session, self._span)
            if freed is None or freed.is_last:
                return
            if freed.ends > _ENDS_PER_SPAN:
                self._span = max(self._span // 2, _LEAST_SPAN)
            elif freed.ends < _ENDS_PER_SPAN // 4:
                self._span = min(self._span * 2, _LARGEST_SPAN)
