"""The nouns of the contract in readable words: statuses, failures, decisions, outcomes.

Owns what a person is told about them, and in which colour. Must not print or call.
"""

from reprise.v1.job_pb2 import Decision, Failure
from reprise.v1.playbook_service_pb2 import Execution, ExecutionStatus

from broker.cli.output import Span, one_line, words_for
from broker.cli.parameters import short_name

STATUS_STYLES = {"leased": "cyan", "retry": "yellow", "done": "green", "dead": "red"}
EXECUTION_STYLES = {"running": "cyan", "completed": "green", "failed": "red", "cancelled": "yellow"}

_LONGEST_TEXT = 300
_REASONS = {
    "any_failure": "the policy retries any failure",
    "retry_when": "retry_when is true",
    "rule": "a rule of the policy matched",
    "condition_error": "a condition could not be evaluated, so the default rule holds",
    "no_policy": "no retry policy, one attempt was all it had",
    "stop_when": "stop_when is true",
    "retry_when_false": "retry_when is false",
    "attempts_exhausted": "no attempt is left",
    "deadline": "the next attempt would start after the deadline",
    "cancelled": "it was cancelled",
    "crashes_exhausted": "it took too many workers down with it",
    "not_rendered": "its input could not be made from the playbook's templates",
    "worker_lost": "its worker was lost",
}


def reason_in_words(reason: str) -> str:
    """The decision's reason as a clause, from its name in the proto or the same in lower case."""
    known = reason.lower().removeprefix("reason_")
    return _REASONS.get(known, known.replace("_", " "))


def error_in_words(error: str, kind: str) -> str:
    """The message on one line, cut, after the failure's type ("ValueError: …") unless it says that itself."""
    message, kind = cut(error), cut(kind)
    if kind and message and not message.startswith(kind):
        return f"{kind}: {message}"
    return message or kind


def failure_in_words(failure: Failure) -> str:
    """The failure's type and message on one line; empty if there was none."""
    return error_in_words(failure.message, failure.type)


def decision_in_words(decision: Decision) -> str:
    """The verdict with its delay and reason; empty if there was none."""
    reason = reason_in_words(Decision.Reason.Name(decision.reason))
    match decision.verdict:
        case Decision.VERDICT_RETRY:
            asked = (
                "; the downstream asked to wait"
                if decision.delay_source == Decision.DELAY_SOURCE_RETRY_AFTER
                else ""
            )
            return f"retry in {words_for(decision.delay.ToTimedelta().total_seconds())}: {reason}{asked}"
        case Decision.VERDICT_DEAD:
            return f"dead: {reason}"
        case _:
            return ""


def checks_in_words(decision: Decision) -> str:
    """A line for each check that led to the decision ("delay  min(1s * 2^0, 60s) -> 1s"); empty without a trace."""
    widest = max((len(step.check) for step in decision.trace), default=0)
    return "\n".join(
        f"{step.check.ljust(widest)}  {f'{cut(step.text)} -> ' if step.text else ''}{cut(step.value)}"
        for step in decision.trace
    )


def outcome_of(execution: Execution) -> tuple[Span, ...]:
    """One line: how the execution stands or ended, after how long, and where and why if it failed."""
    status = short_name(ExecutionStatus.Name(execution.status), "EXECUTION_STATUS_")
    took = ""
    if execution.HasField("finished_at"):
        taken = execution.finished_at.ToDatetime() - execution.started_at.ToDatetime()
        took = f" after {words_for(taken.total_seconds())}"
    where = f" at step {one_line(execution.failed_step)}" if execution.failed_step else ""
    why = failure_in_words(execution.failure)
    style = EXECUTION_STYLES.get(status, "")
    return (
        Span(f"execution {execution.execution_id} "),
        Span(status, f"bold {style}".strip()),
        Span(where + took),
        Span(f": {why}" if why else "", style),
    )


def cut(text: str) -> str:
    """The text on one line, at most 300 characters of it."""
    line = one_line(text)
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 1] + "…"
