"""Events and decisions in the words that people read."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from reprise.v1.job_pb2 import Decision, Event, Failure
from reprise.v1.playbook_service_pb2 import EXECUTION_STATUS_FAILED, EXECUTION_STATUS_RUNNING, Execution

from broker.cli.narrative import Narrator, tell
from broker.cli.output import words_for
from broker.cli.wording import decision_in_words, outcome_of, reason_in_words
from tests.unit.cli.peer import at


def event(event_type: str, **facts: object) -> Event:
    return Event(event_type=event_type, result_json=json.dumps(facts))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Event(event_type="action_started", worker_id="w1"), "attempt started on w1"),
        (
            event("action_error", error="Test retry", error_type="Exception"),
            "attempt failed: Exception: Test retry",
        ),
        (
            event("action_error", error="http.503: busy", error_type="http.503"),
            "attempt failed: http.503: busy",
        ),
        (event("action_error", error="", error_type="timeout"), "attempt failed: timeout"),
        (event("action_error", error="a\n\x1b[31mb", error_type=""), "attempt failed: a [31mb"),
        (
            event("action_retry", retry_delay_seconds=1.5, reason="retry_when"),
            "retry in 1.5 s: retry_when is true",
        ),
        (
            event("action_retry", retry_delay_seconds=2.04, reason="any_failure", delay_source="retry_after"),
            "retry in 2.04 s: the policy retries any failure; the downstream asked to wait",
        ),
        (
            event(
                "action_retry",
                retry_delay_seconds=1,
                reason="condition_error",
                trace=[["retry_when", "{{ status_code > 3 }}", "error: null and a number have no order"]],
            ),
            (
                "retry in 1 s: retry_when could not be evaluated (error: null and a number have no order), "
                "so the default rule holds"
            ),
        ),
        (event("job_dead", reason="attempts_exhausted"), "dead: no attempt is left"),
        (event("job_dead", reason="something_new"), "dead: something new"),
        (
            event("lease_released", why="worker stopped"),
            "lease given back, attempt not counted: worker stopped",
        ),
        (Event(event_type="action_completed", result_json='{"n": 1}'), 'attempt completed: {"n": 1}'),
        (Event(event_type="action_completed", result_json="null"), "attempt completed"),
        (event("step_failed", error="no", error_type="ValueError"), "step failed: ValueError: no"),
        (event("execution_failed", failed_step="fail_task"), "execution failed at step fail_task"),
        (Event(event_type="step_started"), "step started"),
        (Event(event_type="breaker_opened"), "breaker opened"),
        (Event(event_type="action_retry", result_json="no JSON"), "retry"),
    ],
)
def test_event_is_told_in_words(told: Event, words: str) -> None:
    assert tell(told).text == words


def test_long_error_is_cut() -> None:
    assert len(tell(event("action_error", error="x" * 1000)).text) < 330


def test_attempt_is_told_with_the_most_that_there_may_be() -> None:
    narrator = Narrator()
    started = event("action_started", max_attempts=3)
    started.job_id, started.attempt = 7, 2
    failed = Event(event_type="action_error", job_id=7, attempt=2)
    of_another_job = Event(event_type="action_error", job_id=8, attempt=1)
    of_no_job = Event(event_type="step_started")

    told = [narrator.attempt_of(one) for one in (started, failed, of_another_job, of_no_job)]

    assert told == ["2/3", "2/3", "1", ""]


def test_line_says_when_where_and_what() -> None:
    retried = event("action_retry", max_attempts=3, retry_delay_seconds=1, reason="any_failure")
    retried.job_id, retried.attempt, retried.step = 7, 1, "fail_task"
    retried.created_at.CopyFrom(at(0.125))

    line = "".join(span.text for span in Narrator().line(retried))

    assert line.split(None, 3) == [
        "2027-01-15T08:00:00.125Z",
        "fail_task",
        "1/3",
        "retry in 1 s: the policy retries any failure",
    ]


@pytest.mark.parametrize("reason", [name for name, number in Decision.Reason.items() if number])
def test_every_reason_of_the_contract_has_words(reason: str) -> None:
    assert reason_in_words(reason) != reason.removeprefix("REASON_").lower().replace("_", " ")


def test_decision_is_told_with_delay_and_reason() -> None:
    retry = Decision(
        verdict=Decision.VERDICT_RETRY,
        reason=Decision.REASON_RETRY_WHEN,
        delay=Duration(seconds=2, nanos=250_000_000),
    )
    dead = Decision(verdict=Decision.VERDICT_DEAD, reason=Decision.REASON_STOP_WHEN)

    told = [decision_in_words(one) for one in (retry, dead, Decision())]

    assert told == ["retry in 2.25 s: retry_when is true", "dead: stop_when is true", ""]


@pytest.mark.parametrize(
    ("execution", "words"),
    [
        (
            Execution(
                execution_id=7,
                status=EXECUTION_STATUS_FAILED,
                started_at=at(0),
                finished_at=at(3.5),
                failed_step="fetch",
                failure=Failure(type="http.503", message="busy"),
            ),
            "execution 7 failed at step fetch after 3.5 s: http.503: busy",
        ),
        (Execution(execution_id=7, status=EXECUTION_STATUS_RUNNING, started_at=at(0)), "execution 7 running"),
    ],
)
def test_outcome_is_one_line(execution: Execution, words: str) -> None:
    assert "".join(span.text for span in outcome_of(execution)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (1, "1 s"),
        (6.75, "6.75 s"),
        (59.9, "59.9 s"),
        (59.9999, "1 min"),
        (0.9999, "1 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_length_of_time_is_told_in_at_most_two_units(seconds: float, words: str) -> None:
    assert words_for(seconds) == words
