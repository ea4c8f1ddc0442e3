"""What databases return, as JSON: values that JSON has no word for become the text that the database itself
would print.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from worker.json_result import number_of

MOST_ROWS = 1000  # of one statement that a result keeps; row_count still counts all


def json_row(columns: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    """One row by its columns' names."""
    return {column: json_value(value) for column, value in zip(columns, values, strict=True)}


def json_value(value: Any) -> Any:
    """The value as JSON has it.

    Bytes become hex ("\\x0a"), intervals seconds, NaN and infinity their names; else its text.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return number_of(value) if value.is_finite() else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_value(item) for item in value]
        case _:
            return str(value)
