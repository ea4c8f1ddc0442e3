"""The value of `--retry`: a playbook's `retry:` block as people write it, made the contract's RetryPolicy.

Owns the spelling only. Must not judge ranges or conditions: the broker does.
"""

import json
from difflib import get_close_matches
from typing import Any

import click
from google.protobuf.json_format import ParseDict, ParseError
from reprise.v1.retry_pb2 import RetryPolicy

from broker.cli.parameters import parse_duration

_DURATIONS = {"initial_delay", "max_delay", "deadline"}
_CONDITIONS = {"retry_when", "stop_when"}
_JITTERS: dict[object, str] = {
    True: "JITTER_FULL",
    False: "JITTER_NONE",
    "full": "JITTER_FULL",
    "equal": "JITTER_EQUAL",
    "none": "JITTER_NONE",
}


class RetryType(click.ParamType[RetryPolicy | None]):
    """`true`, the number of attempts, or a JSON object like {"max_attempts": 3, "initial_delay": "500ms"}."""

    name = "retry"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> RetryPolicy | None:
        """The policy; None where `false` or 0 ask for one attempt."""
        if isinstance(value, RetryPolicy):
            return value
        try:
            return _policy_from(json.loads(value))
        except (ValueError, ParseError) as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _policy_from(block: object) -> RetryPolicy | None:
    match block:
        case True:
            return RetryPolicy()
        case False | 0:
            return None
        case int(attempts):
            if not 0 < attempts < 2**31:
                raise ValueError("max_attempts must be 1 to 1000")
            return RetryPolicy(max_attempts=attempts)
        case dict(fields):
            return ParseDict({name: _spell(name, value) for name, value in fields.items()}, RetryPolicy())
        case _:
            raise ValueError("write true, a number of attempts, or a JSON object")


def _spell(name: str, value: Any) -> Any:
    """The value as proto JSON spells it. Raises ValueError for a name that RetryPolicy does not have."""
    known = [field.name for field in RetryPolicy.DESCRIPTOR.fields]
    if name not in known:
        close = get_close_matches(name, known, 1)
        raise ValueError(f"unknown key {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
    if name in _DURATIONS:
        return _seconds(name, value)
    if name in _CONDITIONS and isinstance(value, bool):
        return "{{ true }}" if value else "{{ false }}"
    if name == "jitter":
        if not isinstance(value, bool | str) or value not in _JITTERS:
            raise ValueError("jitter must be false, true, full or equal")
        return _JITTERS[value]
    if name == "delays" and isinstance(value, list):
        return [_seconds(name, delay) for delay in value]
    return value


def _seconds(name: str, value: object) -> str:
    duration = parse_duration(str(value)) if isinstance(value, int | float | str) else None
    if duration is None or isinstance(value, bool):
        raise ValueError(f'{name} must be seconds or a duration like "500ms", not {json.dumps(value)}')
    return f"{duration.total_seconds():.6f}s"
