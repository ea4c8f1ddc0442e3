"""The verdict on one failed attempt: whether the job runs again, after how long, and why.

Pure: the same facts, policy and jitter give the same decision. Nothing here stores, waits or reads a clock.
The order of the checks is the contract: cancelled, stop_when, retry_when, attempts left, delay.
"""

from collections.abc import Hashable
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from broker.policy.backoff import delay_after_hint, delay_before_retry
from broker.policy.duration import format_duration
from broker.policy.expression import CONDITION_NAMES, ExpressionError, compile_condition, is_true
from broker.policy.facts import (
    CONDITION_ERROR,
    LEASE_EXPIRED,
    TEMPLATE_ERROR,
    TIMEOUT,
    ConditionContext,
    FailedAttempt,
    Failure,
)
from broker.policy.retry_policy import Jitter, RetryPolicy

__all__ = [
    "CONDITION_ERROR",
    "LEASE_EXPIRED",
    "TEMPLATE_ERROR",
    "TIMEOUT",
    "Decision",
    "DelaySource",
    "FailedAttempt",
    "Failure",
    "Judgement",
    "Reason",
    "TraceStep",
    "Verdict",
    "decide",
    "deciding_facts",
    "describe",
    "is_by_chance",
    "judge",
]

_MAX_TRACED = 200
"""Characters of a value or an error that a trace keeps."""
_ERROR = "error: "
"""What a trace has in front of the error of an expression."""


class Verdict(StrEnum):
    """Whether the job runs again."""

    RETRY = "retry"
    DEAD = "dead"


class Reason(StrEnum):
    """Why the verdict is what it is; named as in job.proto."""

    ANY_FAILURE = "any_failure"
    RETRY_WHEN = "retry_when"
    CONDITION_ERROR = "condition_error"
    NO_POLICY = "no_policy"
    STOP_WHEN = "stop_when"
    RETRY_WHEN_FALSE = "retry_when_false"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    CANCELLED = "cancelled"
    NOT_RENDERED = "not_rendered"
    WORKER_LOST = "worker_lost"


class DelaySource(StrEnum):
    """Where the delay of a retry comes from."""

    BACKOFF = "backoff"
    RETRY_AFTER = "retry_after"


_BECAUSE = {
    Reason.ANY_FAILURE: "any failure is retried",
    Reason.RETRY_WHEN: "retry_when is true",
    Reason.CONDITION_ERROR: "a condition could not be evaluated",
    Reason.NO_POLICY: "it has no retry policy",
    Reason.STOP_WHEN: "stop_when is true",
    Reason.RETRY_WHEN_FALSE: "retry_when is false",
    Reason.ATTEMPTS_EXHAUSTED: "no attempt is left",
    Reason.CANCELLED: "it was cancelled",
    Reason.NOT_RENDERED: "its input could not be rendered",
    Reason.WORKER_LOST: "its worker was lost",
}


class TraceStep(NamedTuple):
    """One check on the way to a decision: its name, its expression or formula, and what came out."""

    check: str
    text: str
    value: str

    @property
    def is_error(self) -> bool:
        """Whether the expression could not be evaluated."""
        return self.value.startswith(_ERROR)


class Decision(NamedTuple):
    """The verdict on `attempt`; `delay` and its source are those of a retry, None when dead.

    `trace` holds every check that was made, in order.
    """

    verdict: Verdict
    reason: Reason
    attempt: int
    max_attempts: int
    delay: timedelta | None = None
    delay_source: DelaySource | None = None
    trace: tuple[TraceStep, ...] = ()


class Judgement(NamedTuple):
    """Whether the job is dead, and why: the decision but for a retry's delay. `trace` holds the checks that were made."""

    is_dead: bool
    reason: Reason
    trace: tuple[TraceStep, ...]


def decide(
    policy: RetryPolicy | None, failed: FailedAttempt, jitter: float, judgement: Judgement | None = None
) -> Decision:
    """The decision on one failed attempt; it never raises for a policy without problems.

    `policy` None means that one attempt is all. `jitter` is uniform in [0, 1); it spreads the policy's own
    delay and a downstream's Retry-After alike. `judgement`: the policy's, where that on an attempt with the
    same `deciding_facts` is known.
    """
    is_dead, reason, checks = judgement or judge(policy, failed)
    if is_dead or policy is None:
        return Decision(Verdict.DEAD, reason, failed.attempt, failed.max_attempts, trace=checks)
    trace = list(checks)
    delay, source = _delay(policy, failed, jitter, trace)
    return Decision(Verdict.RETRY, reason, failed.attempt, failed.max_attempts, delay, source, tuple(trace))


def judge(policy: RetryPolicy | None, failed: FailedAttempt) -> Judgement:
    """The part of `decide` that chance has no part in."""
    trace: list[TraceStep] = []
    is_dead, reason = _judge(policy, failed, trace)
    return Judgement(is_dead, reason, tuple(trace))


def deciding_facts(policy: RetryPolicy | None, failed: FailedAttempt) -> tuple[Hashable, ...] | None:
    """What a decision by this policy depends on, beside chance: where it is equal, so is this policy's judgement.

    None where the time since enqueue counts. What no condition asks for, as a message that holds an id, is not in it.
    """
    failure = failed.failure
    always = (failed.attempt, failed.max_attempts, failed.cancelled, failure.type, failure.retry_after)
    if policy is None:
        return always
    names = _names_asked_for(policy.stop_when, policy.retry_when)
    if "elapsed" in names:
        return None
    # A status code that the failure does not have is looked for in its result.
    reads_result = not names.isdisjoint({"result", "data"}) or (
        failure.status_code is None and "status_code" in names
    )
    return (
        *always,
        failure.message if "error" in names else None,
        failure.status_code if "status_code" in names else None,
        failure.result_json if reads_result else None,
        failed.queue if "queue" in names else None,
        failed.kind if "kind" in names else None,
    )


def is_by_chance(policy: RetryPolicy | None, failure: Failure) -> bool:
    """Whether the delay of a retry is spread."""
    return policy is not None and (policy.jitter is not Jitter.NONE or failure.retry_after is not None)


def describe(decision: Decision) -> str:
    """The decision in one sentence for events, logs and people."""
    if decision.reason is Reason.NOT_RENDERED:
        return f"never ran: dead because {_BECAUSE[decision.reason]}"
    attempt = f"attempt {decision.attempt} of {decision.max_attempts} failed"
    if decision.delay is None:
        return f"{attempt}: dead because {_BECAUSE[decision.reason]}"
    hint = ", as Retry-After asks," if decision.delay_source is DelaySource.RETRY_AFTER else ""
    return (
        f"{attempt}: retried in {format_duration(decision.delay)}{hint} because {_BECAUSE[decision.reason]}"
    )


def _judge(policy: RetryPolicy | None, failed: FailedAttempt, trace: list[TraceStep]) -> tuple[bool, Reason]:
    """Whether the job is dead, and the reason of the verdict."""
    if failed.cancelled:
        trace.append(TraceStep("cancelled", "", "true"))
        return True, Reason.CANCELLED
    if policy is None:
        trace.append(TraceStep("policy", "", "none: one attempt is all"))
        return True, Reason.NO_POLICY
    context = ConditionContext(failed)
    stopped = policy.stop_when is not None and _ask("stop_when", policy.stop_when, context, trace)
    if stopped:
        return True, Reason.STOP_WHEN
    wanted, reason = _ask_retry_when(policy, failed, context, stopped is None, trace)
    if not wanted:
        return True, reason
    trace.append(TraceStep("attempts", "attempt < max_attempts", f"{failed.attempt} < {failed.max_attempts}"))
    if failed.attempt >= failed.max_attempts:
        return True, Reason.ATTEMPTS_EXHAUSTED
    return False, reason


def _ask_retry_when(
    policy: RetryPolicy,
    failed: FailedAttempt,
    context: ConditionContext,
    stop_raised: bool,
    trace: list[TraceStep],
) -> tuple[bool, Reason]:
    """Whether the failure is one to retry, and why; CONDITION_ERROR where only the default rule was left."""
    if failed.failure.type == LEASE_EXPIRED:
        if policy.retry_when is not None:
            trace.append(
                TraceStep("retry_when", _text_of(policy.retry_when), "not asked: the worker was lost")
            )
        return True, Reason.WORKER_LOST
    if policy.retry_when is None:
        return True, Reason.CONDITION_ERROR if stop_raised else Reason.ANY_FAILURE
    wanted = _ask("retry_when", policy.retry_when, context, trace)
    if wanted is None:
        return True, Reason.CONDITION_ERROR
    return wanted, Reason.RETRY_WHEN if wanted else Reason.RETRY_WHEN_FALSE


def _ask(check: str, text: str | bool, context: ConditionContext, trace: list[TraceStep]) -> bool | None:
    """What a condition says; None when it raised, which is recorded."""
    condition = compile_condition(text, CONDITION_NAMES)
    try:
        value = condition.value(context.values_for(condition.names))
    except ExpressionError as error:
        trace.append(TraceStep(check, condition.text, f"{_ERROR}{error}"[:_MAX_TRACED]))
        return None
    trace.append(TraceStep(check, condition.text, _show(value)))
    return is_true(value)


@lru_cache(maxsize=512)
def _names_asked_for(*conditions: str | bool | None) -> frozenset[str]:
    asked = (compile_condition(text, CONDITION_NAMES).names for text in conditions if text is not None)
    return frozenset().union(*asked)


def _delay(
    policy: RetryPolicy, failed: FailedAttempt, jitter: float, trace: list[TraceStep]
) -> tuple[timedelta, DelaySource]:
    own = delay_before_retry(policy, failed.attempt, jitter)
    trace.append(TraceStep("delay", _formula(policy, failed.attempt), format_duration(own)))
    hint = failed.failure.retry_after
    if hint is None:
        return own, DelaySource.BACKOFF
    asked = delay_after_hint(hint, jitter)
    text = f"min({format_duration(hint)}, 1 h) * (1 + 0.1 * jitter)"
    trace.append(TraceStep("retry_after", text, format_duration(asked)))
    return (asked, DelaySource.RETRY_AFTER) if asked > own else (own, DelaySource.BACKOFF)


@lru_cache(maxsize=512)
def _formula(policy: RetryPolicy, attempt: int) -> str:
    grown = f"{format_duration(policy.initial_delay)} * {policy.backoff_multiplier:.12g}^{attempt - 1}"
    capped = f"min({grown}, {format_duration(policy.max_delay)})"
    return capped if policy.jitter == "none" else f"{policy.jitter} jitter of {capped}"


def _text_of(condition: str | bool) -> str:
    return condition if isinstance(condition, str) else str(condition).lower()


def _show(value: object) -> str:
    """A value for a trace, in its JSON form where it is simple, cut; containers only by their size."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return value[:_MAX_TRACED]
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object of {len(value)}"
    return str(value)[:_MAX_TRACED]
