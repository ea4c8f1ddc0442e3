"""How long a failed job waits: the formula of the policy, its cap and its jitter. Pure arithmetic."""

from datetime import timedelta
from typing import assert_never

from broker.policy.retry_policy import Jitter, RetryPolicy

MAX_RETRY_AFTER = timedelta(hours=1)
"""A downstream that asks for longer is asked again after this."""

_RETRY_AFTER_SPREAD = 0.1


def delay_before_retry(policy: RetryPolicy, attempt: int, jitter: float) -> timedelta:
    """min(initial_delay * backoff_multiplier^(attempt - 1), max_delay), spread by `jitter`.

    `attempt` is the one that failed, from 1, so retry k follows attempt k; `jitter` is uniform in [0, 1).
    The outcome is exact to the microsecond, never below 0 and never above max_delay, whatever the attempt.
    """
    delay = _grow(policy, attempt)
    match policy.jitter:
        case Jitter.NONE:
            return delay
        case Jitter.FULL:
            return delay * jitter
        case Jitter.EQUAL:
            return delay * ((1 + jitter) / 2)
    assert_never(policy.jitter)


def delay_after_hint(retry_after: timedelta, jitter: float) -> timedelta:
    """min(retry_after, 1 h), later by up to a tenth: never early, and jobs with one hint come back spread."""
    return min(retry_after, MAX_RETRY_AFTER) * (1 + _RETRY_AFTER_SPREAD * jitter)


def _grow(policy: RetryPolicy, attempt: int) -> timedelta:
    initial = policy.initial_delay.total_seconds()
    if initial == 0:
        return timedelta(0)
    try:
        seconds = initial * policy.backoff_multiplier ** (attempt - 1)
    except OverflowError:
        return policy.max_delay
    return timedelta(seconds=seconds) if seconds < policy.max_delay.total_seconds() else policy.max_delay
