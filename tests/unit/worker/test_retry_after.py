"""Retry-After in both of its forms."""

from datetime import UTC, datetime, timedelta

import pytest

from worker.executors.retry_after import parse_retry_after

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
NINETY_SECONDS_ON = "Mon, 23 Nov 2026 12:01:30 GMT"


@pytest.mark.parametrize(
    ("value", "answered_at", "seconds"),
    [
        (None, None, None),
        ("120", None, 120),
        (" 0 ", None, 0),
        (NINETY_SECONDS_ON, None, 90),
        (NINETY_SECONDS_ON, "Mon, 23 Nov 2026 12:01:00 GMT", 30),
        (NINETY_SECONDS_ON, "nonsense", 90),
        ("Mon, 23 Nov 2026 11:00:00 GMT", None, 0),
        ("soon", None, None),
        ("-3", None, None),
        ("1.5", None, None),
        ("9" * 40, None, 10**9),
    ],
)
def test_wait_is_read_from_seconds_or_a_date(
    value: str | None, answered_at: str | None, seconds: int | None
) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert parse_retry_after(value, answered_at, NOW) == expected
