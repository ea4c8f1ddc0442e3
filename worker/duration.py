"""Durations as people write them in Python: numbers of seconds, texts with a unit, or a timedelta.

Texts have the broker's notation (`broker/policy/duration.py`), which the worker may not import; a test holds the two together. What range a
duration may have is the broker's to check.
"""

import re
from datetime import timedelta

_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NOTATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)\s*", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """What 1.5, "500ms", "2m", "1h", "2d" or a timedelta means. Raises ValueError with a message for people."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _of_seconds(value)
    if isinstance(value, str) and (found := _NOTATION.fullmatch(value)):
        return _of_seconds(float(found[1]) * _SECONDS_PER_UNIT[found[2]])
    raise ValueError(f'must be a number of seconds or a text like "500ms", "2m" or "1h", not {value!r:.60}')


def _of_seconds(seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        if seconds in (float("inf"), float("-inf")):
            raise ValueError(f"must be a finite number of seconds, not {seconds}") from error
        raise ValueError("is too long") from error
    except ValueError as error:
        raise ValueError(f"must be a finite number of seconds, not {seconds}") from error
