"""Keeps leases alive, apart from the steps that run under them.

Owns the beat, and the news that it brings back.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

import grpc

from worker.attempt import Attempt, Stop
from worker.batching import MOST_ITEMS
from worker.client import Client
from worker.lease import Extended, Outcome
from worker.log_lines import LOGGER, line
from worker.repeating import Backoff

BEATS_PER_LEASE = 3  # two beats may be lost before a lease ends


class Heartbeat:
    """Extends every lease of `attempts()` three times per lease duration, 1000 in one call."""

    def __init__(
        self, client: Client, lease_seconds: float, attempts: Callable[[], Collection[Attempt]]
    ) -> None:
        self._client = client
        self._lease_seconds = lease_seconds
        self._attempts = attempts
        self._now = asyncio.Event()
        self._answered = asyncio.Event()
        self._backoff = Backoff()

    def beat_now(self) -> None:
        """Brings the next beat forward: after a broken stream only the broker knows which leases are still
        held.
        """
        self._now.set()

    async def confirm(self) -> None:
        """Returns when the broker has answered a beat that began after this call, however many that takes.

        One caller at a time.
        """
        self._answered = answered = asyncio.Event()
        self.beat_now()
        await answered.wait()

    async def run(self) -> None:
        """Beats until cancelled.

        A beat that fails is made again soon; steps go on, as their leases may well live.
        """
        wait = self._lease_seconds / BEATS_PER_LEASE
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            wait = await self._beat()

    async def _beat(self) -> float:
        """Seconds until the next beat."""
        regular = self._lease_seconds / BEATS_PER_LEASE
        answered = self._answered  # of those who asked before this beat
        attempts = list(self._attempts())
        slices = [attempts[first : first + MOST_ITEMS] for first in range(0, len(attempts), MOST_ITEMS)]
        if not all(await asyncio.gather(*map(self._extend, slices))):
            return min(self._backoff.next_wait(), regular)
        self._backoff.reset()
        answered.set()
        return regular

    async def _extend(self, attempts: Sequence[Attempt]) -> bool:
        """Whether the broker answered. What it says of these leases holds, whatever becomes of other calls."""
        try:
            results = await self._client.extend(
                [attempt.lease.token for attempt in attempts], self._lease_seconds
            )
        except grpc.aio.AioRpcError as error:
            LOGGER.warning(
                line("heartbeat failed", leases=len(attempts), code=error.code().name, error=error.details())
            )
            return False
        for attempt, result in zip(attempts, results, strict=True):
            _apply(attempt, result)
        return True


def _apply(attempt: Attempt, result: Extended) -> None:
    if result.ends_at is not None:
        attempt.ends_at = result.ends_at
    match result.outcome:
        case Outcome.CANCELLED:
            attempt.stop(Stop.CANCELLED)
        case Outcome.LOST:
            attempt.stop(Stop.LOST)
        case Outcome.INVALID:
            LOGGER.error(line("lease not extended", job_id=attempt.lease.job.job_id, error=result.error))
