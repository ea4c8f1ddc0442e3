"""What a step returns becomes JSON that PostgreSQL can hold, or is refused."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from worker.json_result import ResultNotJson, encode_result


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ({"b": 1, "a": [True, 1.5, "ü"]}, '{"b":1,"a":[true,1.5,"ü"]}'),
        (2**63 + 1, "9223372036854775809"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05+00:00"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (time(3, 4), '"03:04:00"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Decimal("12.50"), "12.5"),
        (Decimal("3E+2"), "300"),
        (Decimal("0.1234567890123456789"), '"0.1234567890123456789"'),
        (r"a\u0000b", r'"a\\u0000b"'),
    ],
)
def test_values_keep_their_meaning(value: Any, text: str) -> None:
    assert encode_result(value) == text


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        {1, 2},
        b"x",
        pytest.param(object(), id="object()"),
        "a\0b",
        {"k\0": 1},
        "\ud800",
        _cycle(),
    ],
    ids=str,
)
def test_what_has_no_faithful_json_is_refused(value: Any) -> None:
    with pytest.raises(ResultNotJson):
        encode_result(value)
