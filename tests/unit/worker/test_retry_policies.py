"""`retry=` in Python is what `retry:` is in a playbook: the same spellings, the same refusals, told by name."""

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reprise.v1 import retry_pb2

from broker.errors import Violation
from broker.policy import duration as of_broker
from broker.policy.retry_policy import RetryInvalid, parse_retry
from broker.service.translate.retry_policies import read_retry_policy
from tests.unit.worker.peer import seconds
from worker import duration as of_worker
from worker.retry_policies import policy_message

CONDITION = "{{ error_type == 'http.timeout' or status_code in [429, 502, 503] }}"


def message_of(retry: object) -> retry_pb2.RetryPolicy | None:
    """The policy of a `retry` that has no faults."""
    faults: dict[str, str] = {}
    message = policy_message(retry, "retry", faults)
    assert faults == {}
    return message


def faults_of(retry: object) -> dict[str, str]:
    faults: dict[str, str] = {}
    policy_message(retry, "retry", faults)
    return faults


@pytest.mark.parametrize(
    "retry",
    [
        None,
        False,
        0,
        True,
        4,
        {},
        {"max_attempts": 4, "initial_delay": "500ms", "jitter": "equal", "retry_when": CONDITION},
        *({"initial_delay": delay} for delay in (0, 1, 0.25, "500ms", "1.5s", "2m", "1h", "2d", " 3 s ")),
        {"max_delay": "2m", "backoff_multiplier": 2},
        *({"jitter": jitter} for jitter in (False, True, "none", "full", "equal")),
        {"retry_when": "{{ error }}", "stop_when": None},
    ],
    ids=repr,
)
def test_retry_means_what_it_means_in_a_playbook(retry: object) -> None:
    message = message_of(retry)

    violations: list[Violation] = []
    read = None if message is None else read_retry_policy(message, "retry", violations)
    assert (read, violations) == (parse_retry(retry), [])


def test_numbers_of_other_libraries_are_numbers() -> None:
    class Count:
        def __index__(self) -> int:
            return 4

    message = message_of({"max_attempts": Count(), "backoff_multiplier": Decimal("1.5")})

    assert message == retry_pb2.RetryPolicy(max_attempts=4, backoff_multiplier=1.5)


@pytest.mark.parametrize(
    "retry",
    [
        *("3x", "{}", [1], 2.5, 0.0, (), object),
        *({"max_attempts": attempts} for attempts in ("3", 3.0, True, [3])),
        *(
            {"initial_delay": delay}
            for delay in ("soon", "5", "-5s", "1h30m", "", True, [1], math.nan, math.inf)
        ),
        *({"max_delay": delay} for delay in (-math.inf, 1e300)),
        *({"backoff_multiplier": multiplier} for multiplier in ("2", True, [2])),
        *({"jitter": jitter} for jitter in ("ful", 1, 0, ["full"])),
        *({"retry_when": condition} for condition in (1, ["{{ error }}"])),
        {"stop_when": 0.5},
        *({name: [1]} for name in ("delays", "deadline", "rules", "max_crashes", "honor_retry_after")),
        {"max_attemps": 3},
        {"jiter": True, "max_delay": "x", "retry_when": 1},
    ],
    ids=repr,
)
def test_what_a_playbook_refuses_is_refused_in_the_same_words(retry: object) -> None:
    with pytest.raises(RetryInvalid) as refused:
        parse_retry(retry)

    told = {f"retry.{one.path}" if one.path else "retry": one.message for one in refused.value.problems}
    assert faults_of(retry) == told


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        ({"max_delay": timedelta(minutes=1)}, retry_pb2.RetryPolicy(max_delay=seconds(60))),
        ({"retry_when": True}, retry_pb2.RetryPolicy(retry_when="{{ True }}")),
        ({"stop_when": False}, retry_pb2.RetryPolicy(stop_when="{{ False }}")),
        (dict.fromkeys(["max_attempts", "initial_delay", "jitter", "retry_when"]), retry_pb2.RetryPolicy()),
    ],
    ids=repr,
)
def test_python_has_a_few_forms_of_its_own(retry: object, policy: retry_pb2.RetryPolicy) -> None:
    assert message_of(retry) == policy


@pytest.mark.parametrize(
    "retry",
    [
        -1,
        {"max_attempts": 0},
        {"initial_delay": -1},
        {"backoff_multiplier": math.nan},
        {"retry_when": "{{ ("},
    ],
    ids=repr,
)
def test_ranges_and_conditions_are_left_to_the_broker(retry: Any) -> None:
    violations: list[Violation] = []
    read_retry_policy(message_of(retry) or retry_pb2.RetryPolicy(), "retry", violations)

    field = "max_attempts" if retry == -1 else next(iter(retry))
    assert [violation.field for violation in violations] == [f"retry.{field}"]


@pytest.mark.parametrize(
    ("retry", "field", "told"),
    [
        (10**5000, "max_attempts", "must be from 1 to 1000"),
        ({"max_attempts": -(2**40)}, "max_attempts", "must be from 1 to 1000"),
        ({"backoff_multiplier": 10**400}, "backoff_multiplier", "must be from 1 to 100"),
        ({"initial_delay": 10**400}, "initial_delay", "is too long"),
        ({"retry_when": "\ud800"}, "retry_when", "holds a lone surrogate, which is no Unicode text"),
    ],
    ids=["attempts", "few attempts", "multiplier", "delay", "surrogate"],
)
def test_what_the_contract_has_no_room_for_is_refused(retry: object, field: str, told: str) -> None:
    assert faults_of(retry) == {f"retry.{field}": told}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zzz", "unknown key: known are max_attempts, initial_delay, "),
        (4, "unknown key: known are max_attempts, initial_delay, "),
        ("retries", "unknown key: did you mean 'max_attempts', which counts the first attempt, too?"),
        ("max_retries", "unknown key: did you mean 'max_attempts', which counts the first attempt, too?"),
    ],
)
def test_unknown_key_is_told_what_there_is(name: object, told: str) -> None:
    assert faults_of({name: 3})[f"retry.{name}"].startswith(told)


@pytest.mark.parametrize(
    "value",
    [
        *(0, 1.5, -1, 1e-7, 1e300, -1e300, math.inf, -math.inf, math.nan, True, None, (), b"1s"),
        *(
            "500ms",
            "1.5s",
            "2m",
            "1h",
            "2d",
            " 3 s ",
            "\n3s\n",
            "0.0000005s",
            "1.123456789s",
            "999999999999s",
        ),
        *("", "5", "-5s", "+5s", "1e3s", "1h30m", "1 w", "5S", ".5s", "5.s", "٣s"),
        *("1.1234567891s", "1234567890123ms", "999999999999d"),
    ],
    ids=repr,
)
def test_durations_are_read_as_the_broker_reads_them(value: object) -> None:
    assert _read(of_worker.parse_duration, value) == _read(of_broker.parse_duration, value)


@given(
    st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h|d)", fullmatch=True)
    | st.floats()
    | st.integers(-(2**60), 2**60)
)
def test_durations_are_as_long_as_the_broker_takes_them_for(value: object) -> None:
    assert _read(of_worker.parse_duration, value) == _read(of_broker.parse_duration, value)


def _read(parse: Any, value: object) -> timedelta | str:
    try:
        duration: timedelta = parse(value)
    except ValueError as error:
        return str(error)
    return duration
