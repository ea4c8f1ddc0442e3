"""Retry policies between protobuf and `broker.policy`."""

from reprise.v1 import retry_pb2

from broker.errors import Violation
from broker.policy.retry_policy import Jitter, RetryPolicy, problems_of
from broker.service.translate.instants import duration_message, read_duration

_JITTERS = {
    retry_pb2.JITTER_UNSPECIFIED: Jitter.NONE,
    retry_pb2.JITTER_NONE: Jitter.NONE,
    retry_pb2.JITTER_FULL: Jitter.FULL,
    retry_pb2.JITTER_EQUAL: Jitter.EQUAL,
}
_JITTER_NUMBERS = {jitter: number for number, jitter in _JITTERS.items()}
_NOT_YET = ("delays", "deadline", "rules", "max_crashes", "honor_retry_after")


def read_retry_policy(message: retry_pb2.RetryPolicy, path: str, violations: list[Violation]) -> RetryPolicy:
    """The policy, absent fields at their defaults; one violation more for each field that cannot be used."""
    violations.extend(
        Violation(f"{path}.{field.name}", "is not supported yet", "NOT_SUPPORTED_YET")
        for field, _ in message.ListFields()
        if field.name in _NOT_YET
    )
    found: list[Violation] = []
    default = RetryPolicy()
    policy = RetryPolicy(
        max_attempts=message.max_attempts if message.HasField("max_attempts") else default.max_attempts,
        initial_delay=(
            read_duration(message.initial_delay, f"{path}.initial_delay", found)
            if message.HasField("initial_delay")
            else default.initial_delay
        ),
        backoff_multiplier=(
            message.backoff_multiplier
            if message.HasField("backoff_multiplier")
            else default.backoff_multiplier
        ),
        max_delay=(
            read_duration(message.max_delay, f"{path}.max_delay", found)
            if message.HasField("max_delay")
            else default.max_delay
        ),
        jitter=_JITTERS.get(message.jitter, Jitter.NONE),
        retry_when=message.retry_when or None,
        stop_when=message.stop_when or None,
    )
    if message.jitter not in _JITTERS:
        found.append(Violation(f"{path}.jitter", f"there is no jitter {message.jitter}"))
    found.extend(
        Violation(f"{path}.{problem.path}", _placed(problem.message, problem.line, problem.column))
        for problem in problems_of(policy)
    )
    violations.extend(found)
    return default if found else policy


def retry_policy_message(policy: RetryPolicy) -> retry_pb2.RetryPolicy:
    """The policy with every field that it has filled in, defaults too."""
    return retry_pb2.RetryPolicy(
        max_attempts=policy.max_attempts,
        initial_delay=duration_message(policy.initial_delay),
        backoff_multiplier=policy.backoff_multiplier,
        max_delay=duration_message(policy.max_delay),
        jitter=_JITTER_NUMBERS[policy.jitter],
        retry_when=_condition_text(policy.retry_when),
        stop_when=_condition_text(policy.stop_when),
    )


def _condition_text(condition: str | bool | None) -> str:
    if isinstance(condition, bool):
        return "{{ true }}" if condition else "{{ false }}"
    return condition or ""


def _placed(text: str, line: int | None, column: int | None) -> str:
    return text if line is None else f"{text} (line {line}, column {column})"
