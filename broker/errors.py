"""Every error that the broker raises on purpose.

    RepriseError
    ├── InvalidArgument     the request is wrong; names each bad field
    ├── NotFound            no job, playbook or execution of that id or name
    ├── AlreadyExists       the idempotency key was used before with another body
    ├── WrongState          the thing is not in a state that allows this
    ├── LimitExceeded       over a limit; repeat the same call after `retry_after`
    ├── Unavailable         database away or shutting down; repeat the same call after `retry_after`
    └── NotSupportedYet     an RPC whose turn has not come

The gRPC status of each stands in `broker/service/status.py`. A step that fails is no error: it is a successful Fail.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request ("jobs[3].retry.max_attempts"), what is wrong, and a stable reason."""

    field: str
    description: str
    reason: str = "INVALID"


class RepriseError(Exception):
    """An error with a stable UPPER_SNAKE `reason` that programs may branch on; the text is for people."""

    reason = "INTERNAL"

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class InvalidArgument(RepriseError):
    """The request is wrong in every field that `violations` names; nothing was changed."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = violations
        reasons = {violation.reason for violation in violations}
        if len(reasons) == 1 and reasons != {"INVALID"}:
            self.reason = reasons.pop()


def refuse(violations: Sequence[Violation]) -> None:
    """Raises InvalidArgument with all of them, if there are any."""
    if violations:
        raise InvalidArgument(*violations)


class NotFound(RepriseError):
    """There is no such thing."""

    reason = "NOT_FOUND"


class AlreadyExists(RepriseError):
    """The idempotency key was used before with another body."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class WrongState(RepriseError):
    """The thing exists and is not in a state that allows this."""

    reason = "WRONG_STATE"


class LimitExceeded(RepriseError):
    """Over a limit of the broker: back off for `retry_after`, then repeat the same call."""

    reason = "LIMIT_EXCEEDED"

    def __init__(self, message: str, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(RepriseError):
    """The database is away or the broker shuts down: repeat the same call after `retry_after`."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotSupportedYet(RepriseError):
    """An RPC of the contract whose turn has not come."""

    reason = "NOT_SUPPORTED_YET"
