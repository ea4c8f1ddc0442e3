"""The retry policy of a job: its fields and defaults, what each may be, its forms in YAML and in the store.

It decides nothing: `backoff` computes delays and `decision` verdicts. Defaults and ranges are those of
retry.proto.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache

from broker.policy.duration import format_duration, parse_duration
from broker.policy.expression import CONDITION_NAMES, ExpressionInvalid, compile_condition
from broker.policy.grammar import suggest

MAX_ATTEMPTS = 1000
MAX_DELAY = timedelta(days=30)
MAX_MULTIPLIER = 100.0

_CACHED_POLICIES = 4096
_DURATIONS = ("initial_delay", "max_delay")
_CONDITIONS = ("retry_when", "stop_when")
_FIELDS = ("max_attempts", "initial_delay", "backoff_multiplier", "max_delay", "jitter", *_CONDITIONS)
_NOT_YET = frozenset({"delays", "deadline", "rules", "max_crashes", "honor_retry_after"})


class Jitter(StrEnum):
    """How a delay is spread once it is capped."""

    NONE = "none"
    FULL = "full"
    """Uniform in [0, delay]."""
    EQUAL = "equal"
    """Half the delay and a uniform part of the other half."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When and after how long a failed job runs again; `max_attempts` counts the first execution too.

    A condition that is None was not given: without retry_when every failure is retried.
    """

    max_attempts: int = 3
    initial_delay: timedelta = timedelta(seconds=1)
    backoff_multiplier: float = 1.5
    max_delay: timedelta = timedelta(seconds=60)
    jitter: Jitter = Jitter.NONE
    retry_when: str | bool | None = None
    stop_when: str | bool | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field of a policy; `path` is "" for the policy as a whole.

    `line` and `column` count from 1 in the text of a condition; None for any other field. `is_not_yet` says that a
    policy has this field, and that its turn has not come.
    """

    path: str
    message: str
    line: int | None = None
    column: int | None = None
    is_not_yet: bool = False

    def __str__(self) -> str:
        place = "" if self.line is None else f" (line {self.line}, column {self.column})"
        return f"{self.path}: {self.message}{place}" if self.path else f"{self.message}{place}"


class RetryInvalid(ValueError):
    """A retry policy that is refused, with every problem that it has."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def problems_of(policy: RetryPolicy) -> tuple[Problem, ...]:
    """Everything that is out of range or does not compile in a policy; empty when it can be used."""
    problems: list[Problem] = []
    if not 1 <= policy.max_attempts <= MAX_ATTEMPTS:
        problems.append(
            Problem("max_attempts", f"must be from 1 to {MAX_ATTEMPTS}, not {policy.max_attempts}")
        )
    for name, delay in (("initial_delay", policy.initial_delay), ("max_delay", policy.max_delay)):
        if not timedelta(0) <= delay <= MAX_DELAY:
            problems.append(Problem(name, f"must be from 0 s to 30 d, not {format_duration(delay)}"))
    if not 1 <= policy.backoff_multiplier <= MAX_MULTIPLIER:
        message = f"must be from 1 to {MAX_MULTIPLIER:g}, not {policy.backoff_multiplier:g}"
        problems.append(Problem("backoff_multiplier", message))
    for name, condition in (("retry_when", policy.retry_when), ("stop_when", policy.stop_when)):
        if condition is not None:
            problems.extend(_problems_of_condition(name, condition))
    return tuple(problems)


def parse_retry(value: object) -> RetryPolicy | None:
    """The policy that a `retry:` block of a playbook means: true, false, a number of attempts or a mapping.

    None for one attempt (absent, false or 0). Raises RetryInvalid with all problems at once.
    """
    match value:
        case None | False:
            return None
        case True:
            return RetryPolicy()
        case int():
            return _checked(RetryPolicy(max_attempts=value), ()) if value else None
        case Mapping():
            return _parse_mapping(value)
    message = f"must be true, false, a number of attempts or a mapping, not {value!r:.60}"
    raise RetryInvalid((Problem("", message),))


def to_json(policy: RetryPolicy) -> str:
    """The policy as JSON text, the same for equal policies: all fields in order, durations in seconds.

    A condition that was not given is left out.
    """
    fields: dict[str, object] = {
        "max_attempts": policy.max_attempts,
        "initial_delay": policy.initial_delay.total_seconds(),
        "backoff_multiplier": float(policy.backoff_multiplier),
        "max_delay": policy.max_delay.total_seconds(),
        "jitter": policy.jitter.value,
    }
    conditions = {"retry_when": policy.retry_when, "stop_when": policy.stop_when}
    fields |= {name: condition for name, condition in conditions.items() if condition is not None}
    return json.dumps(fields, ensure_ascii=False)


@lru_cache(maxsize=_CACHED_POLICIES)
def from_json(text: str) -> RetryPolicy:
    """The policy that `to_json` wrote; cached by text. Raises RetryInvalid if it has problems."""
    return _parse_mapping(json.loads(text))


def _parse_mapping(fields: Mapping[object, object]) -> RetryPolicy:
    problems: list[Problem] = []
    given: dict[str, object] = {}
    for name, value in fields.items():
        if name in _NOT_YET:
            problems.append(Problem(str(name), "is not supported yet", is_not_yet=True))
            continue
        try:
            if not isinstance(name, str) or name not in _FIELDS:
                raise ValueError(f"unknown key: {suggest(str(name), _FIELDS)}")
            given[name] = _parse_field(name, value)
        except ValueError as error:
            problems.append(Problem(str(name), str(error)))
    return _checked(RetryPolicy(**given), problems)  # type: ignore[arg-type]


def _checked(policy: RetryPolicy, problems: Iterable[Problem]) -> RetryPolicy:
    """The policy itself; RetryInvalid with the given problems and its own, if there are any."""
    found = (*problems, *problems_of(policy))
    if found:
        raise RetryInvalid(found)
    return policy


def _parse_field(name: str, value: object) -> object:
    """One field of a mapping with its type checked; raises ValueError. Ranges are left to `problems_of`."""
    if name in _DURATIONS:
        return parse_duration(value)
    if name in _CONDITIONS:
        return _parse_condition(value)
    if name == "jitter":
        return _parse_jitter(value)
    if isinstance(value, bool) or not isinstance(value, int if name == "max_attempts" else (int, float)):
        kind = "a whole number" if name == "max_attempts" else "a number"
        raise ValueError(f"must be {kind}, not {value!r:.60}")
    return value


def _parse_condition(value: object) -> str | bool | None:
    if value is None or isinstance(value, (str, bool)):
        return value
    raise ValueError(f"must be true, false or one {{{{ … }}}}, not {value!r:.60}")


def _parse_jitter(value: object) -> Jitter:
    if isinstance(value, bool):
        return Jitter.FULL if value else Jitter.NONE
    try:
        return Jitter(value)  # type: ignore[arg-type]
    except ValueError:
        raise ValueError(f"must be true, false, none, full or equal, not {value!r:.60}") from None


def _problems_of_condition(name: str, condition: str | bool) -> list[Problem]:
    try:
        compile_condition(condition, CONDITION_NAMES)
    except ExpressionInvalid as error:
        return [Problem(name, error.message, error.line, error.column)]
    return []
