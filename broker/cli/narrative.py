"""Events in readable words: what happened, to which attempt, what the broker decided and why.

Owns the wording of the history. Must not print or call.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from reprise.v1.job_pb2 import Event

from broker.cli.output import Span, one_line, time_of_day, words_for
from broker.cli.wording import cut, error_in_words, reason_in_words

_STEP_WIDTH = 16
_PLAIN = {
    "job_enqueued": Span("job enqueued", "dim"),
    "job_redriven": Span("job redriven, attempts counted from 0 again", "cyan"),
    "job_rescheduled": Span("job moved to another time", "cyan"),
    "step_started": Span("step started", "dim"),
    "step_completed": Span("step completed", "green"),
    "execution_started": Span("execution started", "bold"),
    "execution_completed": Span("execution completed", "bold green"),
    "execution_cancelled": Span("execution cancelled", "bold yellow"),
}


@dataclass(slots=True)
class Narrator:
    """Tells events in their order; remembers each job's max_attempts, which not every event repeats."""

    _max_attempts: dict[int, int] = field(default_factory=dict)

    def attempt_of(self, event: Event) -> str:
        """ "2/3": the attempt that the event is about, of how many; empty if it is about none."""
        announced = _facts(event).get("max_attempts")
        if isinstance(announced, int):
            self._max_attempts[event.job_id] = announced
        if not event.attempt:
            return ""
        most = self._max_attempts.get(event.job_id)
        return f"{event.attempt}/{most}" if most else str(event.attempt)

    def line(self, event: Event) -> tuple[Span, ...]:
        """The whole line: when, which step or job, which attempt, what happened."""
        where = one_line(event.step) or (f"job {event.job_id}" if event.job_id else "")
        return (
            Span(time_of_day(event.created_at) + "  ", "dim"),
            Span(where.ljust(_STEP_WIDTH) + "  "),
            Span(self.attempt_of(event).rjust(5) + "  "),
            tell(event),
        )


def tell(event: Event) -> Span:
    """What happened, without when and where; an event of an unknown type is told by its name."""
    facts = _facts(event)
    match event.event_type:
        case "action_started":
            return Span("attempt started" + _after(" on ", event.worker_id), "cyan")
        case "action_completed":
            return Span("attempt completed" + _after(": ", _result_of(event)), "green")
        case "action_error":
            return Span("attempt failed" + _after(": ", _error_in(facts)), "red")
        case "action_retry":
            return Span(f"retry{_delay_in(facts)}{_because(facts)}{_asked_for(facts)}", "bold yellow")
        case "job_dead":
            return Span(f"dead{_because(facts)}", "bold red")
        case "lease_released":
            return Span(f"lease given back, attempt not counted{_because(facts)}", "dim")
        case "step_failed":
            return Span("step failed" + _after(": ", _error_in(facts)), "red")
        case "execution_failed":
            return Span("execution failed" + _after(" at step ", _text(facts, "failed_step")), "bold red")
        case kind:
            return _PLAIN.get(kind, Span(one_line(kind).replace("_", " ")))


def _facts(event: Event) -> Mapping[str, object]:
    if event.event_type == "action_completed":
        # Its result is the attempt's own, whatever names it has.
        return {}
    try:
        facts = json.loads(event.result_json or "{}")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _text(facts: Mapping[str, object], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _error_in(facts: Mapping[str, object]) -> str:
    return error_in_words(_text(facts, "error"), _text(facts, "error_type"))


def _after(opening: str, text: str) -> str:
    return opening + cut(text) if text else ""


def _because(facts: Mapping[str, object]) -> str:
    reason = _text(facts, "reason") or _text(facts, "why")
    if reason == "condition_error" and (unevaluated := _unevaluated(facts)):
        return _after(": ", unevaluated)
    return _after(": ", reason_in_words(reason) if reason else "")


def _unevaluated(facts: Mapping[str, object]) -> str:
    """Which conditions raised, and why, as the trace has it; empty if it does not say."""
    trace = facts.get("trace")
    told = [
        f"{check} could not be evaluated ({outcome})"
        for check, _, outcome in (trace if isinstance(trace, list) else ())
        if check in {"stop_when", "retry_when"} and outcome.startswith("error: ")
    ]
    return f"{', '.join(told)}, so the default rule holds" if told else ""


def _asked_for(facts: Mapping[str, object]) -> str:
    return "; the downstream asked to wait" if facts.get("delay_source") == "retry_after" else ""


def _delay_in(facts: Mapping[str, object]) -> str:
    delay = facts.get("retry_delay_seconds")
    return f" in {words_for(float(delay))}" if isinstance(delay, int | float) else ""


def _result_of(event: Event) -> str:
    return "" if event.result_json in {"null", "{}"} else event.result_json
