"""Expired leases of executions, ended beside the sweep that finds them: a playbook that takes long to go on holds up no other job.

In memory only: what a broker that is killed had not ended yet is found again, by any broker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from broker.errors import RepriseError
from broker.store.finish import Facts

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class Overdue:
    """Hands leases to `expire`, all that wait at a time, again and again until it has looked at each."""

    def __init__(self, expire: Callable[[Sequence[Facts]], Awaitable[None]]) -> None:
        self._expire = expire
        self._waiting: dict[int, Facts] = {}  # by lease_id
        self._runner: asyncio.Task[None] | None = None

    def add(self, leases: Iterable[Facts]) -> None:
        """These leases have expired; one that already waits stands once."""
        self._waiting |= {lease.lease_id: lease for lease in leases}
        if self._waiting and self._runner is None:
            self._runner = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Drops what waits."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, {}
                try:
                    await self._expire(list(taken.values()))
                except RepriseError as error:
                    _log.warning(
                        "expired leases of executions wait count=%d error=%r", len(taken), str(error)
                    )
                    self._waiting = taken | self._waiting
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._runner = None
