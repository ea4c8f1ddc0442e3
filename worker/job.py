"""What a handler or an executor is given: one job, in one attempt."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from worker.failure import Failure


class StopSignal:
    """Says that an attempt is over, to any thread; a threading.Event that is made only where somebody waits for it."""

    __slots__ = ("_event", "_is_set")
    _making = threading.Lock()

    def __init__(self) -> None:
        self._is_set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Whether the attempt is over."""
        return self._is_set

    def set(self) -> None:
        """Says so, for good."""
        with self._making:
            self._is_set = True
            if self._event:
                self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks this thread until the attempt is over, or for `timeout` seconds; whether it is over."""
        with self._making:
            if self._event is None:
                self._event = threading.Event()
                if self._is_set:
                    self._event.set()
        return self._event.wait(timeout)


# Not frozen: making one would take 4 us instead of 1 (2026-11-24), and every attempt has one.
@dataclass(slots=True)
class Job:
    """One attempt of a job.

    `input` is what was enqueued; `attempt` is counted from 1; `step` and `execution_id` are '' and 0 outside
    a playbook.
    """

    job_id: int
    queue: str
    kind: str
    attempt: int
    max_attempts: int
    input: Mapping[str, Any]
    execution_id: int = 0
    step: str = ""
    dependency: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    traceparent: str = ""
    created_at: datetime | None = None
    attempt_timeout: timedelta | None = None
    last_failure: Failure | None = None  # of the attempt before this one
    stopped: StopSignal = field(default_factory=StopSignal, repr=False, compare=False)

    @property
    def should_stop(self) -> bool:
        """Whether the attempt is over already (cancelled, lost, timed out): a long synchronous handler asks
        now and then and returns.
        """
        return self.stopped.is_set()
