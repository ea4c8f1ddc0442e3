"""The `retry` of a job to enqueue, in a playbook's spellings, made the contract's RetryPolicy.

Owns spellings and types. Must not judge ranges or conditions: the broker does.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from operator import index
from typing import Any, Final, SupportsFloat, SupportsIndex

from reprise.v1 import retry_pb2

from worker.duration import parse_duration
from worker.json_result import LONE_SURROGATE
from worker.wire import duration_message

_FIELDS: Final = (
    *("max_attempts", "initial_delay", "backoff_multiplier", "max_delay"),
    *("jitter", "retry_when", "stop_when"),
)
_NOT_YET: Final = frozenset(retry_pb2.RetryPolicy.DESCRIPTOR.fields_by_name).difference(_FIELDS)
# What other libraries call it, too far from our word to be found by its letters.
_RETRIES: Final = ("retries", "max_retries")
_JITTERS: Final = {
    False: retry_pb2.JITTER_NONE,
    True: retry_pb2.JITTER_FULL,
    "none": retry_pb2.JITTER_NONE,
    "full": retry_pb2.JITTER_FULL,
    "equal": retry_pb2.JITTER_EQUAL,
}


def policy_message(retry: object, path: str, faults: dict[str, str]) -> retry_pb2.RetryPolicy | None:
    """A policy from True, a number of attempts or a mapping; None where there is to be one attempt.

    A field that is None takes its default. Adds to `faults`, by its path under `path`, what each field cannot be; the policy is of no use
    then.
    """
    match retry:
        case None | False:
            return None
        case True:
            return retry_pb2.RetryPolicy()
        case int():
            return _policy_of({"max_attempts": retry}, path, faults) if retry else None
        case Mapping():
            return _policy_of(retry, path, faults)
    faults[path] = f"must be true, false, a number of attempts or a mapping, not {retry!r:.60}"
    return None


def _policy_of(given: Mapping[Any, Any], path: str, faults: dict[str, str]) -> retry_pb2.RetryPolicy:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        try:
            if name not in _FIELDS:
                raise ValueError(_told_of_unknown(name))
            if value is not None:
                fields[name] = _read_field(name, value)
        except ValueError as error:
            faults[f"{path}.{name}"] = str(error)
    return retry_pb2.RetryPolicy(**fields)


def _read_field(name: str, value: object) -> Any:
    match name:
        case "max_attempts":
            return _read_attempts(value)
        case "backoff_multiplier":
            return _read_multiplier(value)
        case "initial_delay" | "max_delay":
            return duration_message(parse_duration(value))
        case "jitter":
            return _read_jitter(value)
        case _:
            return _read_condition(value)


def _read_attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ValueError(f"must be a whole number, not {value!r:.60}")
    number = index(value)
    if not -(2**31) <= number < 2**31:  # the contract has no room for it, so the broker cannot say so
        raise ValueError("must be from 1 to 1000")
    return number


def _read_multiplier(value: object) -> float:
    if isinstance(value, (bool, str)) or not isinstance(value, SupportsFloat | SupportsIndex):
        raise ValueError(f"must be a number, not {value!r:.60}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("must be from 1 to 100") from None


def _read_jitter(value: object) -> retry_pb2.Jitter.ValueType:
    if not isinstance(value, (bool, str)) or value not in _JITTERS:
        raise ValueError(f"must be true, false, none, full or equal, not {value!r:.60}")
    return _JITTERS[value]


def _read_condition(value: object) -> str:
    if isinstance(value, bool):
        return f"{{{{ {value} }}}}"
    if not isinstance(value, str):
        raise ValueError(f"must be true, false or one {{{{ … }}}}, not {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(LONE_SURROGATE) from None
    return value


def _told_of_unknown(name: object) -> str:
    if name in _NOT_YET:
        return "is not supported yet"
    if name in _RETRIES:
        return "unknown key: did you mean 'max_attempts', which counts the first attempt, too?"
    near = get_close_matches(str(name), _FIELDS, n=1)
    return "unknown key: " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_FIELDS)}")
