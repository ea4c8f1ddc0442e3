"""The verdict: the order of the checks, its reasons, and what conditions see of a failure."""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.decision import (
    LEASE_EXPIRED,
    TIMEOUT,
    Decision,
    DelaySource,
    FailedAttempt,
    Failure,
    Reason,
    TraceStep,
    Verdict,
    decide,
    deciding_facts,
    describe,
    is_by_chance,
    judge,
)
from broker.policy.expression import CONDITION_NAMES
from broker.policy.retry_policy import Jitter, RetryPolicy

RAISES = "{{ retry_after > 5 }}"


def failed(
    attempt: int = 1,
    max_attempts: int = 3,
    *,
    error: str = "Boom",
    error_type: str = "ValueError",
    status_code: int | None = None,
    retry_after: float | None = None,
    result: object = None,
    cancelled: bool = False,
) -> FailedAttempt:
    hint = None if retry_after is None else timedelta(seconds=retry_after)
    result_json = None if result is None else json.dumps(result)
    failure = Failure(error, error_type, status_code, hint, result_json)
    return FailedAttempt(attempt, max_attempts, timedelta(seconds=12.5), "mail", "send", failure, cancelled)


def outcome(policy: RetryPolicy | None, attempt: FailedAttempt) -> tuple[Verdict, Reason]:
    decision = decide(policy, attempt, 0.5)
    return decision.verdict, decision.reason


def sees(expression: str, attempt: FailedAttempt) -> bool:
    """Whether a condition on the attempt holds; it must not raise."""
    verdict, reason = outcome(RetryPolicy(retry_when=f"{{{{ {expression} }}}}"), attempt)
    assert reason in (Reason.RETRY_WHEN, Reason.RETRY_WHEN_FALSE), reason
    return verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("policy", "attempt", "verdict", "reason"),
    [
        (None, failed(1, 1), Verdict.DEAD, Reason.NO_POLICY),
        (None, failed(1, 1, cancelled=True), Verdict.DEAD, Reason.CANCELLED),
        (None, failed(1, 1, error_type=LEASE_EXPIRED), Verdict.DEAD, Reason.NO_POLICY),
        (RetryPolicy(), failed(), Verdict.RETRY, Reason.ANY_FAILURE),
        (RetryPolicy(), failed(3, 3), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(max_attempts=1), failed(1, 1), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(), failed(cancelled=True), Verdict.DEAD, Reason.CANCELLED),
        (RetryPolicy(stop_when=True), failed(cancelled=True), Verdict.DEAD, Reason.CANCELLED),
        (RetryPolicy(stop_when=True), failed(), Verdict.DEAD, Reason.STOP_WHEN),
        (RetryPolicy(stop_when=True, retry_when=True), failed(), Verdict.DEAD, Reason.STOP_WHEN),
        (RetryPolicy(stop_when=True), failed(3, 3), Verdict.DEAD, Reason.STOP_WHEN),
        (RetryPolicy(stop_when=False), failed(), Verdict.RETRY, Reason.ANY_FAILURE),
        (RetryPolicy(retry_when=True), failed(), Verdict.RETRY, Reason.RETRY_WHEN),
        (RetryPolicy(retry_when=False), failed(), Verdict.DEAD, Reason.RETRY_WHEN_FALSE),
        (RetryPolicy(retry_when=False), failed(3, 3), Verdict.DEAD, Reason.RETRY_WHEN_FALSE),
        (RetryPolicy(retry_when=True), failed(3, 3), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(retry_when="{{ 'no' }}"), failed(), Verdict.DEAD, Reason.RETRY_WHEN_FALSE),
        (RetryPolicy(retry_when=RAISES), failed(), Verdict.RETRY, Reason.CONDITION_ERROR),
        (RetryPolicy(retry_when=RAISES), failed(3, 3), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(stop_when=RAISES), failed(), Verdict.RETRY, Reason.CONDITION_ERROR),
        (RetryPolicy(stop_when=RAISES), failed(3, 3), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(stop_when=RAISES, retry_when=True), failed(), Verdict.RETRY, Reason.RETRY_WHEN),
        (RetryPolicy(stop_when=RAISES, retry_when=False), failed(), Verdict.DEAD, Reason.RETRY_WHEN_FALSE),
        (RetryPolicy(), failed(error_type=LEASE_EXPIRED), Verdict.RETRY, Reason.WORKER_LOST),
        (RetryPolicy(retry_when=False), failed(error_type=LEASE_EXPIRED), Verdict.RETRY, Reason.WORKER_LOST),
        (RetryPolicy(retry_when=RAISES), failed(error_type=LEASE_EXPIRED), Verdict.RETRY, Reason.WORKER_LOST),
        (RetryPolicy(stop_when=True), failed(error_type=LEASE_EXPIRED), Verdict.DEAD, Reason.STOP_WHEN),
        (RetryPolicy(), failed(3, 3, error_type=LEASE_EXPIRED), Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED),
        (RetryPolicy(retry_when=False), failed(error_type=TIMEOUT), Verdict.DEAD, Reason.RETRY_WHEN_FALSE),
        (RetryPolicy(), failed(error_type=TIMEOUT), Verdict.RETRY, Reason.ANY_FAILURE),
    ],
)
def test_the_checks_are_made_in_their_order(
    policy: RetryPolicy | None, attempt: FailedAttempt, verdict: Verdict, reason: Reason
) -> None:
    assert outcome(policy, attempt) == (verdict, reason)


@pytest.mark.parametrize(("max_attempts", "initial", "waits"), [(3, 1, [1, 1.5]), (5, 2, [2, 3, 4.5, 6.75])])
def test_constant_failure_takes_exactly_max_attempts(
    max_attempts: int, initial: float, waits: list[float]
) -> None:
    policy = RetryPolicy(max_attempts, timedelta(seconds=initial))

    decisions = [decide(policy, failed(attempt, max_attempts), 0.5) for attempt in range(1, max_attempts + 1)]

    *retried, last = decisions
    assert [decision.delay for decision in retried] == [timedelta(seconds=wait) for wait in waits]
    assert {decision.verdict for decision in retried} == {Verdict.RETRY}
    assert (last.verdict, last.attempt, last.max_attempts) == (Verdict.DEAD, max_attempts, max_attempts)
    assert last.delay is None
    assert last.delay_source is None


@pytest.mark.parametrize(
    "expression",
    [
        "error == 'Boom'",
        "error_type == 'ValueError'",
        "success == false",
        "attempt == 2 and max_attempts == 4",
        "elapsed == 12.5",
        "queue == 'mail' and kind == 'send'",
        "retry_after is none and result is none and data is none and status_code is none",
        "data.deep.member is none",
        "error != None and status_code not in [429, 502]",
    ],
)
def test_every_name_is_there_and_none_when_unknown(expression: str) -> None:
    assert sees(expression, failed(2, 4))


def test_retry_after_is_seen_in_seconds() -> None:
    assert sees("retry_after == 1.5", failed(retry_after=1.5))


@pytest.mark.parametrize(
    ("own", "result", "expected"),
    [
        (503, {"status_code": 404, "data": {"status_code": 400}}, "503"),
        (None, {"status_code": 404, "data": {"status_code": 400}}, "404"),
        (None, {"data": {"status_code": 400}}, "400"),
        (None, {"status_code": "404", "data": {"status_code": 400}}, "400"),
        (None, {"status_code": True}, "none"),
        (None, {"status_code": 4.5}, "none"),
        (None, {"data": [1]}, "none"),
        (None, [503], "none"),
        (None, None, "none"),
    ],
)
def test_status_code_is_lifted_from_the_failure_or_its_result(
    own: int | None, result: object, expected: str
) -> None:
    assert sees(f"status_code == {expected}", failed(status_code=own, result=result))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"data": {"a": 1}, "b": 2}, '{"a": 1}'),
        ({"data": None, "b": 2}, "null"),
        ({"b": 2}, '{"b": 2}'),
        ([1, 2], "[1, 2]"),
        ("text", '"text"'),
    ],
)
def test_data_is_that_of_the_result_or_the_result(result: object, expected: str) -> None:
    assert sees(f"data | tojson == '{expected}'", failed(result=result))


def test_the_seeds_conditions_hold_where_they_should() -> None:
    policy = RetryPolicy(
        retry_when="{{ error != None and status_code in [429, 502, 503] }}",
        stop_when="{{ 'invalid' in (error | lower) }}",
    )

    assert outcome(policy, failed(status_code=503)) == (Verdict.RETRY, Reason.RETRY_WHEN)
    assert outcome(policy, failed(status_code=404)) == (Verdict.DEAD, Reason.RETRY_WHEN_FALSE)
    assert outcome(policy, failed(error="Invalid key", status_code=503)) == (Verdict.DEAD, Reason.STOP_WHEN)


@pytest.mark.parametrize(
    ("retry_after", "die", "seconds", "source"),
    [
        (None, 0.5, 4, DelaySource.BACKOFF),
        (0, 0.5, 4, DelaySource.BACKOFF),
        (3, 0.5, 4, DelaySource.BACKOFF),
        (10, 0.0, 10, DelaySource.RETRY_AFTER),
        (10, 0.5, 10.5, DelaySource.RETRY_AFTER),
        (600, 0.0, 600, DelaySource.RETRY_AFTER),
        (7200, 0.0, 3600, DelaySource.RETRY_AFTER),
        (7200, 0.5, 3780, DelaySource.RETRY_AFTER),
    ],
)
def test_retry_after_raises_the_delay_above_max_delay_if_need_be(
    retry_after: float | None, die: float, seconds: float, source: DelaySource
) -> None:
    policy = RetryPolicy(initial_delay=timedelta(seconds=4), max_delay=timedelta(seconds=60))

    decision = decide(policy, failed(retry_after=retry_after), die)

    assert decision.delay == timedelta(seconds=seconds)
    assert decision.delay_source is source


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.sampled_from(Jitter))
def test_a_retry_has_attempts_left_and_a_delay(attempt: int, die: float, jitter: Jitter) -> None:
    policy = RetryPolicy(max_attempts=1000, jitter=jitter)

    decision = decide(policy, failed(attempt, 1000), die)

    assert (decision.verdict is Verdict.RETRY) == (attempt < 1000)
    assert (decision.delay is None) == (attempt >= 1000)


# Each shows in the trace what it has seen.
_CONDITIONS = [None, True, RAISES, *(f"{{{{ {name} | tojson }}}}" for name in sorted(CONDITION_NAMES))]
_ATTEMPTS = st.builds(
    FailedAttempt,
    attempt=st.sampled_from([1, 2]),
    max_attempts=st.sampled_from([2, 3]),
    elapsed=st.sampled_from([timedelta(), timedelta(hours=1)]),
    queue=st.sampled_from(["mail", "bulk"]),
    kind=st.sampled_from(["send", "fetch"]),
    failure=st.builds(
        Failure,
        message=st.sampled_from(["refused", "reset"]),
        type=st.sampled_from(["ConnectionError", LEASE_EXPIRED]),
        status_code=st.sampled_from([None, 500, 503]),
        retry_after=st.sampled_from([None, timedelta(seconds=5)]),
        result_json=st.sampled_from([None, '{"status_code": 500}', '{"data": {"status_code": 503}}']),
        stack_trace=st.sampled_from(["", "here"]),
    ),
    cancelled=st.booleans(),
)


def those_that_differ_in_one_fact(attempt: FailedAttempt, other: FailedAttempt) -> Iterator[FailedAttempt]:
    """`attempt` with each fact of the other one, one at a time."""
    for field in set(FailedAttempt._fields) - {"failure"}:
        yield attempt._replace(**{field: getattr(other, field)})
    for field in Failure._fields:
        yield attempt._replace(failure=attempt.failure._replace(**{field: getattr(other.failure, field)}))


@given(_ATTEMPTS, _ATTEMPTS, st.sampled_from(Jitter))
def test_attempts_with_the_same_deciding_facts_get_the_same_decision(
    attempt: FailedAttempt, other: FailedAttempt, jitter: Jitter
) -> None:
    policies = [None, *(RetryPolicy(jitter=jitter, retry_when=condition) for condition in _CONDITIONS)]
    for policy, changed in product(policies, those_that_differ_in_one_fact(attempt, other)):
        deciding = deciding_facts(policy, attempt)
        if deciding is None or deciding != deciding_facts(policy, changed):
            continue
        assert judge(policy, attempt) == judge(policy, changed)
        assert decide(policy, attempt, 0.1) == decide(policy, changed, 0.1)
        if not is_by_chance(policy, attempt.failure):
            assert decide(policy, attempt, 0.1) == decide(policy, changed, 0.9)


@pytest.mark.parametrize("asking", ["retry_when", "stop_when"])
def test_where_a_condition_asks_for_the_time_every_attempt_is_decided_by_itself(asking: str) -> None:
    assert deciding_facts(RetryPolicy(**{asking: "{{ elapsed < 60 }}"}), failed()) is None  # type: ignore[arg-type]


def test_a_message_decides_only_where_a_condition_asks_for_it() -> None:
    refused, reset = failed(error="refused"), failed(error="reset")
    by_code, by_message = (
        RetryPolicy(retry_when=text) for text in ("{{ status_code == 503 }}", "{{ 'reset' in error }}")
    )

    assert deciding_facts(by_code, refused) == deciding_facts(by_code, reset)
    assert deciding_facts(by_message, refused) != deciding_facts(by_message, reset)


def test_the_trace_holds_every_check_in_order() -> None:
    policy = RetryPolicy(
        initial_delay=timedelta(seconds=2),
        jitter=Jitter.FULL,
        stop_when="{{ attempt > 5 }}",
        retry_when="{{ status_code }}",
    )

    decision = decide(policy, failed(2, 3, status_code=503, retry_after=9), 0.5)

    assert decision.trace == (
        TraceStep("stop_when", "{{ attempt > 5 }}", "false"),
        TraceStep("retry_when", "{{ status_code }}", "503"),
        TraceStep("attempts", "attempt < max_attempts", "2 < 3"),
        TraceStep("delay", "full jitter of min(2 s * 1.5^1, 60 s)", "1.5 s"),
        TraceStep("retry_after", "min(9 s, 1 h) * (1 + 0.1 * jitter)", "9.45 s"),
    )


def test_the_trace_ends_with_the_check_that_decided() -> None:
    policy = RetryPolicy(stop_when=True, retry_when="{{ error }}")

    assert [step.check for step in decide(policy, failed(), 0.5).trace] == ["stop_when"]
    assert [step.check for step in decide(policy, failed(cancelled=True), 0.5).trace] == ["cancelled"]
    assert [step.check for step in decide(None, failed(), 0.5).trace] == ["policy"]


def test_a_condition_that_raises_is_recorded_with_its_error() -> None:
    policy = RetryPolicy(stop_when=RAISES, retry_when="{{ data.count > 1 }}")

    stop, retry, *_ = decide(policy, failed(), 0.5).trace

    assert stop == TraceStep("stop_when", RAISES, "error: null and a number have no order")
    assert retry.value == "error: null and a number have no order"


def test_a_lost_worker_is_recorded_as_not_asked() -> None:
    step, *_ = decide(RetryPolicy(retry_when=False), failed(error_type=LEASE_EXPIRED), 0.5).trace

    assert step == TraceStep("retry_when", "false", "not asked: the worker was lost")


@pytest.mark.parametrize(
    ("expression", "shown"),
    [("error", "x" * 200), ("result", "an object of 1"), ("data.list", "a list of 3"), ("none", "null")],
)
def test_values_in_a_trace_are_short(expression: str, shown: str) -> None:
    policy = RetryPolicy(retry_when=f"{{{{ {expression} }}}}")

    step, *_ = decide(policy, failed(error="x" * 5000, result={"list": [1, 2, 3]}), 0.5).trace

    assert step.value == shown


@pytest.mark.parametrize("result_json", ["{broken", "[" * 100_000, "9" * 5000, "[" + "{}," * 300_000 + "{}]"])
def test_a_result_that_cannot_be_read_is_a_condition_error(result_json: str) -> None:
    failure = Failure("Boom", "E", result_json=result_json)
    attempt = FailedAttempt(1, 3, timedelta(), "q", "k", failure)

    decision = decide(RetryPolicy(retry_when="{{ data.x == 1 }}"), attempt, 0.5)

    assert (decision.verdict, decision.reason) == (Verdict.RETRY, Reason.CONDITION_ERROR)
    assert decision.trace[0].value.startswith("error: the result ")


@pytest.mark.parametrize(
    ("expression", "status_code"), [("error == 'Boom'", None), ("status_code == 503", 503)]
)
def test_a_result_is_not_read_when_no_condition_needs_it(expression: str, status_code: int | None) -> None:
    failure = Failure("Boom", "E", status_code, result_json="{broken")
    attempt = FailedAttempt(1, 3, timedelta(), "q", "k", failure)

    assert sees(expression, attempt)


@pytest.mark.parametrize(
    ("policy", "attempt", "sentence"),
    [
        (
            RetryPolicy(retry_when=True),
            failed(),
            "attempt 1 of 3 failed: retried in 1 s because retry_when is true",
        ),
        (
            RetryPolicy(),
            failed(2),
            "attempt 2 of 3 failed: retried in 1.5 s because any failure is retried",
        ),
        (
            RetryPolicy(),
            failed(retry_after=30),
            "attempt 1 of 3 failed: retried in 31.5 s, as Retry-After asks, because any failure is retried",
        ),
        (RetryPolicy(), failed(3), "attempt 3 of 3 failed: dead because no attempt is left"),
        (RetryPolicy(stop_when=True), failed(), "attempt 1 of 3 failed: dead because stop_when is true"),
        (None, failed(1, 1), "attempt 1 of 1 failed: dead because it has no retry policy"),
    ],
)
def test_a_decision_is_described_in_one_sentence(
    policy: RetryPolicy | None, attempt: FailedAttempt, sentence: str
) -> None:
    assert describe(decide(policy, attempt, 0.5)) == sentence


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words(reason: Reason) -> None:
    assert " because " in describe(Decision(Verdict.DEAD, reason, 1, 3))
