"""Follows the events of an execution while they are written.

Ids rise with the time of the statement, not of its commit: one that was read may be followed by one with a lower id. So the tail
reads again what may still be joined by a late commit, and sends what it has not yet sent.
"""

from collections.abc import AsyncIterator

from reprise.v1 import job_pb2

from broker.ids import IDS_PER_SECOND
from broker.service.playbook_reads import PlaybookReads

# Nothing commits later than a turn of executions and one statement may take.
_LATEST_COMMIT_IDS = 30 * IDS_PER_SECOND
_EVENTS_PER_READ = 200


class EventTail:
    """What was sent of one execution."""

    def __init__(self, reads: PlaybookReads, execution_id: int) -> None:
        self._reads = reads
        self._execution_id = execution_id
        self._sent: set[int] = set()
        self._newest = 0

    async def new_events(self) -> AsyncIterator[job_pb2.Event]:
        """Events that were not sent before, oldest first. Raises Unavailable."""
        after = max(0, self._newest - _LATEST_COMMIT_IDS)
        # What lies behind the window cannot be joined any more: its ids need not be remembered.
        self._sent = {event_id for event_id in self._sent if event_id > after}
        while True:
            events = await self._reads.events_after(self._execution_id, after, self._sent, _EVENTS_PER_READ)
            for event in events:
                after = event.event_id
                self._sent.add(event.event_id)
                self._newest = max(self._newest, event.event_id)
                yield event
            if len(events) < _EVENTS_PER_READ:
                return
