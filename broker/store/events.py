"""The kinds of events, by the numbers that the view noetl.history gives them. Owns no statement."""

from enum import IntEnum


class EventKind(IntEnum):
    """One kind of transition; the number is its index in `noetl.event_type()`, from 1."""

    JOB_ENQUEUED = 1
    ACTION_STARTED = 2
    ACTION_COMPLETED = 3
    ACTION_ERROR = 4
    ACTION_RETRY = 5
    JOB_DEAD = 6
    LEASE_RELEASED = 7
    JOB_REDRIVEN = 8
    JOB_RESCHEDULED = 9
    EXECUTION_STARTED = 10
    STEP_STARTED = 11
    STEP_COMPLETED = 12
    STEP_FAILED = 13
    EXECUTION_COMPLETED = 14
    EXECUTION_FAILED = 15
    EXECUTION_CANCELLED = 16

    @property
    def event_type(self) -> str:
        """The text that people and programs see, as in `noetl.event.event_type`."""
        return self.name.lower()


EVENT_KINDS = {kind.event_type: kind for kind in EventKind}
TERMINAL_KINDS = frozenset({EventKind.ACTION_COMPLETED, EventKind.JOB_DEAD})
EXECUTION_END_KINDS = frozenset(
    {EventKind.EXECUTION_COMPLETED, EventKind.EXECUTION_FAILED, EventKind.EXECUTION_CANCELLED}
)
