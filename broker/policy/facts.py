"""The facts of one failed attempt, and what its conditions see of them.

Facts come cleaned and cut; nothing here decides. The failure's result is read only when a condition asks.
"""

import json
from datetime import timedelta
from typing import Final, NamedTuple

from broker.policy.bounds import ExpressionError

LEASE_EXPIRED: Final = "lease_expired"
TIMEOUT: Final = "timeout"
TEMPLATE_ERROR: Final = "template_error"
CONDITION_ERROR: Final = "condition_error"

MAX_RESULT_WEIGHT = 10_000_000
"""About the bytes that a result may take as Python values: 1 MiB of `{}` would take 25 MB."""

_BYTES_PER_MARK = {"{": 232, "[": 72, ",": 40, '"': 12}
_KEYS_OF_SMALL_OBJECT = 5
_BYTES_PER_MORE_KEY = 90
_LIFTED = frozenset({"result", "data", "status_code"})


class Failure(NamedTuple):
    """What went wrong in one attempt. `result_json` is what it returned in spite of failing, if anything.

    `type` is a stable class of error; the broker's own are the constants of this module. `retry_after` is
    what the downstream asked for.
    """

    message: str
    type: str
    status_code: int | None = None
    retry_after: timedelta | None = None
    result_json: str | None = None
    stack_trace: str = ""


class FailedAttempt(NamedTuple):
    """One attempt that failed, with the job around it.

    `attempt` counts from 1, `max_attempts` is in force for the job, `elapsed` runs since enqueue or redrive,
    and `cancelled` says that somebody asked to stop the job meanwhile.
    """

    attempt: int
    max_attempts: int
    elapsed: timedelta
    queue: str
    kind: str
    failure: Failure
    cancelled: bool = False


class ConditionContext:
    """What the conditions of one decision see: the result is parsed at most once, and only if one uses it."""

    __slots__ = ("_failure", "_from_result", "_lazy_names", "_plain")

    def __init__(self, failed: FailedAttempt) -> None:
        failure = failed.failure
        self._failure = failure
        self._lazy_names = _LIFTED if failure.status_code is None else _LIFTED - {"status_code"}
        self._from_result: dict[str, object] | None = None
        self._plain: dict[str, object] = {
            "error": failure.message,
            "error_type": failure.type,
            "status_code": failure.status_code,
            "success": False,
            "attempt": failed.attempt,
            "max_attempts": failed.max_attempts,
            "elapsed": failed.elapsed.total_seconds(),
            "retry_after": None if failure.retry_after is None else failure.retry_after.total_seconds(),
            "queue": failed.queue,
            "kind": failed.kind,
        }

    def values_for(self, names: frozenset[str]) -> dict[str, object]:
        """The values of at least `names`, each defined; ExpressionError if the result is unreadable."""
        if names.isdisjoint(self._lazy_names):
            return self._plain
        if self._from_result is None:
            self._from_result = self._plain | _read_result(self._failure)
        return self._from_result


def _read_result(failure: Failure) -> dict[str, object]:
    """`result`, `data` and `status_code`: the failure's own, else the result's, else that of result.data."""
    result = None if failure.result_json is None else _parse(failure.result_json)
    data = result["data"] if isinstance(result, dict) and "data" in result else result
    candidates = (failure.status_code, _status_code_of(result), _status_code_of(data))
    status_code = next((code for code in candidates if code is not None), None)
    return {"result": result, "data": data, "status_code": status_code}


def _status_code_of(value: object) -> int | None:
    code = value.get("status_code") if isinstance(value, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _parse(text: str) -> object:
    if _weigh_text(text) > MAX_RESULT_WEIGHT:
        raise ExpressionError("the result holds too many values to look into")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"the result cannot be read: {error}") from error


def _weigh_text(text: str) -> int:
    """About the bytes that JSON takes once parsed, from its marks alone; texts that hold such marks count too much."""
    weight = len(text) + sum(cost * text.count(mark) for mark, cost in _BYTES_PER_MARK.items())
    more_keys = text.count(":") - _KEYS_OF_SMALL_OBJECT * text.count("{")
    return weight + _BYTES_PER_MORE_KEY * max(more_keys, 0)
