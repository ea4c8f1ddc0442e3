"""The delay before a retry: the formula in exact fractions, its cap and its jitter."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.policy.backoff import delay_after_hint, delay_before_retry
from broker.policy.retry_policy import Jitter, RetryPolicy

A_MONTH = timedelta(days=30)

delays = st.timedeltas(min_value=timedelta(0), max_value=A_MONTH)
multipliers = st.floats(1, 100)
attempts = st.integers(1, 10_000)
dice = st.floats(0, 1, exclude_max=True)


def seconds_before_retries(policy: RetryPolicy, count: int) -> list[float]:
    return [delay_before_retry(policy, attempt, 0.5).total_seconds() for attempt in range(1, count + 1)]


def test_the_defaults_wait_1_and_then_1_5_seconds() -> None:
    assert seconds_before_retries(RetryPolicy(), 2) == [1, 1.5]


def test_from_2_seconds_the_waits_are_2_3_4_5_and_6_75() -> None:
    policy = RetryPolicy(max_attempts=5, initial_delay=timedelta(seconds=2), backoff_multiplier=1.5)

    assert seconds_before_retries(policy, 4) == [2, 3, 4.5, 6.75]


def test_the_delay_stops_growing_at_max_delay() -> None:
    policy = RetryPolicy(backoff_multiplier=10, max_delay=timedelta(seconds=50))

    assert seconds_before_retries(policy, 4) == [1, 10, 50, 50]


def test_an_initial_delay_above_max_delay_is_capped() -> None:
    policy = RetryPolicy(initial_delay=timedelta(hours=1), max_delay=timedelta(seconds=5))

    assert seconds_before_retries(policy, 1) == [5]


@pytest.mark.parametrize(
    ("jitter", "die", "seconds"),
    [
        (Jitter.NONE, 0.25, 8),
        (Jitter.FULL, 0.0, 0),
        (Jitter.FULL, 0.25, 2),
        (Jitter.EQUAL, 0.0, 4),
        (Jitter.EQUAL, 0.25, 5),
    ],
)
def test_jitter_spreads_the_capped_delay(jitter: Jitter, die: float, seconds: float) -> None:
    policy = RetryPolicy(initial_delay=timedelta(seconds=20), max_delay=timedelta(seconds=8), jitter=jitter)

    assert delay_before_retry(policy, 1, die) == timedelta(seconds=seconds)


@given(delays, multipliers, delays, st.sampled_from(Jitter), attempts, dice)
@example(A_MONTH, 100.0, A_MONTH, Jitter.FULL, 10_000, 0.9999999999999999)
@example(timedelta(0), 100.0, A_MONTH, Jitter.EQUAL, 10_000, 0.5)
@example(timedelta(microseconds=3), 1.0, timedelta(microseconds=3), Jitter.EQUAL, 1, 0.75)
@example(timedelta(microseconds=1), 100.0, timedelta(0), Jitter.NONE, 1, 0.0)
def test_a_delay_is_never_below_0_and_never_above_max_delay(
    initial: timedelta, multiplier: float, limit: timedelta, jitter: Jitter, attempt: int, die: float
) -> None:
    policy = RetryPolicy(1000, initial, multiplier, limit, jitter)

    assert timedelta(0) <= delay_before_retry(policy, attempt, die) <= limit


@given(delays, multipliers, delays, attempts, dice)
def test_without_jitter_a_delay_never_shrinks(
    initial: timedelta, multiplier: float, limit: timedelta, attempt: int, die: float
) -> None:
    policy = RetryPolicy(1000, initial, multiplier, limit)

    assert delay_before_retry(policy, attempt, die) <= delay_before_retry(policy, attempt + 1, 1 - die)


@given(st.integers(1, 1_000_000), st.integers(1, 12))
def test_fractions_are_exact_to_the_microsecond(milliseconds: int, attempt: int) -> None:
    """1.5^(k-1) ms of a whole number of ms is a multiple of 1/2^(k-1) ms; up to k = 4 that is whole in µs."""
    policy = RetryPolicy(initial_delay=timedelta(milliseconds=milliseconds), max_delay=A_MONTH)
    exact_times_2 = milliseconds * 1000 * 3 ** (attempt - 1) * 2 // 2 ** (attempt - 1)

    microseconds = delay_before_retry(policy, attempt, 0) // timedelta(microseconds=1)

    assert abs(2 * microseconds - exact_times_2) <= 1


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)), dice)
def test_a_hint_is_never_early_and_at_most_a_tenth_late(hint: timedelta, die: float) -> None:
    assert hint <= delay_after_hint(hint, die) <= hint * 1.1 + timedelta(microseconds=1)


def test_a_hint_beyond_an_hour_counts_as_an_hour() -> None:
    assert delay_after_hint(timedelta.max, 0.5) == timedelta(hours=1) * 1.05
