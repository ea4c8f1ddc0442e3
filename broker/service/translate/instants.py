"""Durations and timestamps between protobuf and Python, checked: protobuf takes any number for either."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from broker.errors import Violation

# The ranges that google/protobuf/duration.proto and timestamp.proto give.
_MAX_DURATION_SECONDS = 315_576_000_000
_MIN_TIMESTAMP_SECONDS = -62_135_596_800
_MAX_TIMESTAMP_SECONDS = 253_402_300_799
_NANOS = 1_000_000_000
_SECONDS_PER_DAY = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_duration(value: Duration) -> bool:
    """Whether `value` is within duration.proto's range, both parts of the same sign."""
    in_range = abs(value.seconds) <= _MAX_DURATION_SECONDS and abs(value.nanos) < _NANOS
    return in_range and not (value.seconds > 0 > value.nanos or value.seconds < 0 < value.nanos)


def to_timedelta(value: Duration) -> timedelta:
    """A valid duration, cut to microseconds."""
    return timedelta(seconds=value.seconds, microseconds=int(value.nanos / 1000))


def read_duration(
    value: Duration,
    path: str,
    violations: list[Violation],
    *,
    least: timedelta | None = None,
    most: timedelta | None = None,
) -> timedelta:
    """A duration from `least` to `most`, both included; else zero and one more violation at `path`."""
    if not is_duration(value):
        violations.append(Violation(path, "is not a valid duration"))
        return timedelta()
    duration = to_timedelta(value)
    if least is not None and duration < least:
        violations.append(Violation(path, f"must be at least {_seconds(least)}"))
    elif most is not None and duration > most:
        violations.append(Violation(path, f"must be at most {_seconds(most)}"))
    else:
        return duration
    return timedelta()


def read_timestamp(value: Timestamp, path: str, violations: list[Violation]) -> datetime:
    """An instant of the years 1 to 9999, in UTC; else 1970 and one more violation at `path`."""
    if not (_MIN_TIMESTAMP_SECONDS <= value.seconds <= _MAX_TIMESTAMP_SECONDS and 0 <= value.nanos < _NANOS):
        violations.append(Violation(path, "is not a valid timestamp"))
        return _EPOCH
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def duration_message(value: timedelta) -> Duration:
    """The same duration."""
    message = Duration()
    write_duration(message, value)
    return message


def write_duration(message: Duration, value: timedelta) -> None:
    """Sets `message`, which is empty, to the same duration, at a fraction of what FromTimedelta takes."""
    seconds = value.days * _SECONDS_PER_DAY + value.seconds
    nanos = value.microseconds * 1000
    if seconds < 0 < nanos:
        seconds, nanos = seconds + 1, nanos - _NANOS  # both parts have one sign
    message.seconds = seconds
    message.nanos = nanos


def timestamp_message(value: datetime) -> Timestamp:
    """The same instant."""
    message = Timestamp()
    write_timestamp(message, value)
    return message


def write_timestamp(message: Timestamp, value: datetime) -> None:
    """Sets `message` to the same instant, at a tenth of what FromDatetime takes."""
    since = value - _EPOCH
    message.seconds = since.days * _SECONDS_PER_DAY + since.seconds
    message.nanos = since.microseconds * 1000


def _seconds(value: timedelta) -> str:
    return f"{value.total_seconds():g} s"
