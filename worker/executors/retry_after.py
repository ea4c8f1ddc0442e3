"""The Retry-After header of HTTP (RFC 9110 §10.2.3): seconds, or a date. Pure."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, answered_at: str | None, now: datetime) -> timedelta | None:
    """How long the server asks to wait; None where it does not, or where the value is neither form.

    A date is measured against the answer's own Date header, so that the two machines' clocks need not agree;
    without one against `now`. A date in the past is no wait at all.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:12]), 10**9))
    at = _instant_of(text)
    if at is None:
        return None
    return max(at - (_instant_of(answered_at) or now), timedelta())


def _instant_of(text: str | None) -> datetime | None:
    try:
        instant = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
