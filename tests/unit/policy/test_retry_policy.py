"""The forms of a retry policy: what each means, what is refused, and that the stored form is stable."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.duration import format_duration, parse_duration
from broker.policy.retry_policy import (
    Jitter,
    Problem,
    RetryInvalid,
    RetryPolicy,
    from_json,
    parse_retry,
    problems_of,
    to_json,
)

DEFAULTS = RetryPolicy(
    max_attempts=3,
    initial_delay=timedelta(seconds=1),
    backoff_multiplier=1.5,
    max_delay=timedelta(seconds=60),
    jitter=Jitter.NONE,
    retry_when=None,
    stop_when=None,
)


def delays() -> st.SearchStrategy[timedelta]:
    return st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30))


def policies() -> st.SearchStrategy[RetryPolicy]:
    conditions = st.sampled_from([None, True, False, "{{ error }}", "{{ 'é' in error }}"])
    return st.builds(
        RetryPolicy,
        max_attempts=st.integers(1, 1000),
        initial_delay=delays(),
        backoff_multiplier=st.floats(1, 100),
        max_delay=delays(),
        jitter=st.sampled_from(Jitter),
        retry_when=conditions,
        stop_when=conditions,
    )


def problem_of(value: object) -> Problem:
    with pytest.raises(RetryInvalid) as refused:
        parse_retry(value)
    assert len(refused.value.problems) == 1, refused.value
    return refused.value.problems[0]


@pytest.mark.parametrize("value", [None, False, 0])
def test_no_retry_means_one_attempt(value: object) -> None:
    assert parse_retry(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, DEFAULTS),
        ({}, DEFAULTS),
        (5, RetryPolicy(max_attempts=5)),
        (1, RetryPolicy(max_attempts=1)),
        ({"max_attempts": 7}, RetryPolicy(max_attempts=7)),
        ({"initial_delay": 2}, RetryPolicy(initial_delay=timedelta(seconds=2))),
        ({"initial_delay": "500ms"}, RetryPolicy(initial_delay=timedelta(milliseconds=500))),
        ({"backoff_multiplier": 2}, RetryPolicy(backoff_multiplier=2)),
        ({"max_delay": "2m"}, RetryPolicy(max_delay=timedelta(minutes=2))),
        ({"jitter": True}, RetryPolicy(jitter=Jitter.FULL)),
        ({"jitter": False}, DEFAULTS),
        ({"jitter": "equal"}, RetryPolicy(jitter=Jitter.EQUAL)),
        ({"retry_when": "{{ error != None }}"}, RetryPolicy(retry_when="{{ error != None }}")),
        ({"retry_when": False, "stop_when": True}, RetryPolicy(retry_when=False, stop_when=True)),
        ({"retry_when": None}, DEFAULTS),
        (
            {"initial_delay": "1h", "max_delay": "1m"},
            RetryPolicy(initial_delay=timedelta(hours=1), max_delay=timedelta(minutes=1)),
        ),
    ],
)
def test_absent_fields_take_the_defaults(value: object, expected: RetryPolicy) -> None:
    assert parse_retry(value) == expected


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"max_attemps": 3}, "max_attemps", "unknown key: did you mean 'max_attempts'?"),
        ({"zzz": 3}, "zzz", "unknown key: known are backoff_multiplier, initial_delay"),
        ({4: 3}, "4", "unknown key"),
        ({"rules": []}, "rules", "is not supported yet"),
        ({"delays": [1]}, "delays", "is not supported yet"),
        ({"max_attempts": 0}, "max_attempts", "must be from 1 to 1000, not 0"),
        ({"max_attempts": 1001}, "max_attempts", "must be from 1 to 1000, not 1001"),
        ({"max_attempts": True}, "max_attempts", "must be a whole number, not True"),
        ({"max_attempts": 3.0}, "max_attempts", "must be a whole number, not 3.0"),
        ({"max_attempts": "3"}, "max_attempts", "must be a whole number, not '3'"),
        ({"max_attempts": None}, "max_attempts", "must be a whole number, not None"),
        ({"initial_delay": -1}, "initial_delay", "must be from 0 s to 30 d, not -1 s"),
        ({"initial_delay": "soon"}, "initial_delay", "must be a number of seconds or a text like"),
        ({"initial_delay": "31d"}, "initial_delay", "must be from 0 s to 30 d"),
        ({"initial_delay": math.nan}, "initial_delay", "must be a finite number of seconds, not nan"),
        ({"max_delay": math.inf}, "max_delay", "must be a finite number of seconds, not inf"),
        ({"max_delay": 1e300}, "max_delay", "is too long"),
        ({"max_delay": True}, "max_delay", "must be a number of seconds or a text like"),
        ({"backoff_multiplier": 0.5}, "backoff_multiplier", "must be from 1 to 100, not 0.5"),
        ({"backoff_multiplier": math.nan}, "backoff_multiplier", "must be from 1 to 100, not nan"),
        ({"backoff_multiplier": math.inf}, "backoff_multiplier", "must be from 1 to 100, not inf"),
        ({"backoff_multiplier": "2"}, "backoff_multiplier", "must be a number, not '2'"),
        ({"backoff_multiplier": True}, "backoff_multiplier", "must be a number, not True"),
        ({"jitter": "some"}, "jitter", "must be true, false, none, full or equal, not 'some'"),
        ({"jitter": 1}, "jitter", "must be true, false, none, full or equal, not 1"),
        ({"retry_when": 1}, "retry_when", "must be true, false or one {{ … }}, not 1"),
        ({"stop_when": "error"}, "stop_when", "a condition is true, false or exactly one {{ … }}"),
        (-1, "max_attempts", "must be from 1 to 1000, not -1"),
        (2.5, "", "must be true, false, a number of attempts or a mapping, not 2.5"),
        ("yes", "", "must be true, false, a number of attempts or a mapping, not 'yes'"),
        ([3], "", "must be true, false, a number of attempts or a mapping, not [3]"),
    ],
)
def test_what_a_policy_cannot_be_is_refused_by_name(value: object, path: str, message: str) -> None:
    problem = problem_of(value)

    assert problem.path == path
    assert message in problem.message


def test_a_faulty_condition_is_refused_with_its_place() -> None:
    problem = problem_of({"retry_when": "{{ error != None and\n   status == 503 }}"})

    assert (problem.path, problem.line, problem.column) == ("retry_when", 2, 4)
    assert "did you mean 'status_code'?" in problem.message


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(RetryInvalid) as refused:
        parse_retry({"max_attempts": 0, "jiter": True, "stop_when": "{{", "max_delay": "x"})

    assert {problem.path for problem in refused.value.problems} == {
        "max_attempts",
        "jiter",
        "stop_when",
        "max_delay",
    }


@given(policies())
def test_a_stored_policy_is_read_back_as_it_was(policy: RetryPolicy) -> None:
    assert problems_of(policy) == ()
    assert from_json(to_json(policy)) == policy


def test_equal_policies_are_stored_alike() -> None:
    assert to_json(RetryPolicy(backoff_multiplier=2)) == to_json(RetryPolicy(backoff_multiplier=2.0))
    assert to_json(DEFAULTS) == (
        '{"max_attempts": 3, "initial_delay": 1.0, "backoff_multiplier": 1.5, "max_delay": 60.0, "jitter": "none"}'
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        ("2m", 120),
        ("1h", 3600),
        ("2d", 172800),
        (" 3 s ", 3),
    ],
)
def test_durations_are_read_in_seconds_or_with_a_unit(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", ["", "5", "-5s", "1h30m", "5 parsecs", "s", "1e3s", "٣s", True, None, [1], {}]
)
def test_other_durations_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (1, "1 s"), (6.75, "6.75 s"), (60, "60 s"), (0.000001, "0.000001 s")]
)
def test_durations_are_written_exactly(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text
