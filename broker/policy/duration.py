"""Durations as people write them: numbers of seconds, or a number with a unit, and back.

Owns that notation alone; what range a duration may have is the business of the field that it stands in.
"""

import math
import re
from datetime import timedelta

_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NOTATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)\s*", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """A duration from a number of seconds or a text like "500ms", "2m", "1h", "2d"; to the microsecond.

    Negative numbers are let through, since ranges are checked elsewhere. Raises ValueError with a message for
    people.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number of seconds, not {value}")
        return _of_seconds(value)
    if isinstance(value, str) and (found := _NOTATION.fullmatch(value)):
        return _of_seconds(float(found[1]) * _SECONDS_PER_UNIT[found[2]])
    raise ValueError(f'must be a number of seconds or a text like "500ms", "2m" or "1h", not {value!r:.60}')


def format_duration(duration: timedelta) -> str:
    """The duration in seconds, exact to a microsecond, without idle zeros: "1.5 s"."""
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + " s"


def _of_seconds(seconds: float) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise ValueError("is too long") from error
