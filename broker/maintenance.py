"""Keeps the database in shape, a little at a time. Every broker does; the statements bear being run by several."""

from broker.store.session import Session
from broker.store.upkeep import drop_leftovers, drop_old_keys, ensure_partitions

MAINTENANCE_SECONDS = 60.0
_KEYS_PER_ROUND = 1000
# What was left undone for long may take longer than a hot statement may.
_STATEMENT_TIMEOUT_SECONDS = 60.0


class Maintenance:
    """One round of upkeep at each call."""

    def __init__(self, database_url: str) -> None:
        self._session = Session(database_url, statement_timeout_seconds=_STATEMENT_TIMEOUT_SECONDS)
        self._last_job = 0

    async def __call__(self) -> float:
        """Does what is to be done now; the seconds until the next round. Raises Unavailable."""
        await ensure_partitions(self._session)
        await drop_leftovers(self._session)
        count = _KEYS_PER_ROUND
        while count == _KEYS_PER_ROUND:
            self._last_job, count = await drop_old_keys(self._session, self._last_job, _KEYS_PER_ROUND)
        return MAINTENANCE_SECONDS

    async def close(self) -> None:
        """Closes its connection."""
        await self._session.close()
