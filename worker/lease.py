"""The nouns between the client and the runner: leases, what came back of them, the broker's decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from worker.job import Job


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one attempt. `ends_at` is an instant of this process's monotonic clock, in seconds.

    An input that cannot be read is a fault of this job alone: it fails the attempt, not the stream.
    """

    token: str
    job: Job
    ends_at: float
    input_fault: str = ""  # why the job's `input` is empty although something was enqueued


class Outcome(Enum):
    """What became of one item of Extend, Complete, Fail or Release."""

    OK = "ok"
    LOST = "lost"
    CANCELLED = "cancelled"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened to a lease while it runs: its outcome is CANCELLED or LOST."""

    token: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of a lease stream; empty: a sign of life."""

    leases: tuple[Lease, ...]
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Extended:
    """The answer to a heartbeat for one lease. `ends_at` is monotonic; None unless OK or CANCELLED."""

    outcome: Outcome
    ends_at: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The broker's verdict, in the contract's words in lower case.

    `delay_seconds` is None unless the verdict is "retry".
    """

    verdict: str
    reason: str
    attempt: int
    max_attempts: int
    delay_seconds: float | None

    @property
    def is_retry(self) -> bool:
        """Whether the job runs again."""
        return self.verdict == "retry"


@dataclass(frozen=True, slots=True)
class Reported:
    """The answer to Complete, Fail or Release for one lease; `decision` after a Fail that was OK."""

    outcome: Outcome
    decision: Decision | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to enqueue.

    `retry` takes the forms of a playbook's: True, a number of attempts, or a mapping, whose durations may also be timedeltas; None: one
    attempt.

    `delay_seconds` is when it may first run, from now. `attempt_timeout_seconds`: the longest one attempt may
    run.
    Without an `idempotency_key` it gets one of its own, so that a repeated call enqueues it once.
    """

    kind: str
    input: Mapping[str, Any]
    queue: str = "default"
    retry: bool | int | Mapping[str, Any] | None = None
    priority: int = 0
    delay_seconds: float | None = None
    idempotency_key: str | None = None
    dependency: str = ""
    attempt_timeout_seconds: float | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The id of an enqueued job; `created` is False where its idempotency key named one that was there
    already.
    """

    job_id: int
    created: bool
