"""What a handler or an executor is given: one job, in one attempt."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from worker.failure import Failure


@dataclass(frozen=True, slots=True)
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
    stopped: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def should_stop(self) -> bool:
        """Whether the attempt is over already (cancelled, lost, timed out): a long synchronous handler asks
        now and then and returns.
        """
        return self.stopped.is_set()
