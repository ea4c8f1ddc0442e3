"""A job that cannot be sent is refused with every field that is in the way."""

import math
import sqlite3
from typing import Any

import pytest

from worker.errors import EnqueueRefused
from worker.lease import NewJob
from worker.new_jobs import new_job_messages


def faults_of(*jobs: NewJob) -> dict[str, str]:
    with pytest.raises(EnqueueRefused) as refused:
        new_job_messages(jobs)
    return dict(refused.value.faults)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        *(
            ("input", value, f"must be a mapping, not {value!r}")
            for value in ("{}", "", [], [("a", 1)], 5, None)
        ),
        ("input", {"a": {1}}, "is not JSON: a value of type set has no JSON form"),
        ("input", {"a": "\0"}, "holds a NUL character, which PostgreSQL cannot store"),
        ("kind", 5, "must be a text, not 5"),
        ("queue", "\ud800", "holds a lone surrogate, which is no Unicode text"),
        ("priority", "high", "must be a whole number from -100 to 100, not 'high'"),
        ("priority", 2**40, "must be a whole number from -100 to 100, not 1099511627776"),
        ("idempotency_key", 17, "must be a text, not 17"),
        ("dependency", ["db"], "must be a text, not ['db']"),
        ("labels", {"team": 1}, "must be a mapping of texts to texts, not {'team': 1}"),
        ("labels", "team=a", "must be a mapping of texts to texts, not 'team=a'"),
        ("delay_seconds", "2m", "must be a number of seconds, 10 000 years at most, not '2m'"),
        ("delay_seconds", 1e14, "must be a number of seconds, 10 000 years at most, not 100000000000000.0"),
        ("delay_seconds", math.inf, "must be a number of seconds, 10 000 years at most, not inf"),
        ("attempt_timeout_seconds", math.nan, "must be a number of seconds, 10 000 years at most, not nan"),
        ("retry", "3x", "must be true, false, a number of attempts or a mapping, not '3x'"),
    ],
)
def test_field_that_cannot_be_sent_is_refused_by_its_name(field: str, value: Any, told: str) -> None:
    job: dict[str, Any] = {"kind": "charge", "input": {}, field: value}

    assert faults_of(NewJob(**job)) == {f"jobs[0].{field}": told}


def test_every_bad_field_of_every_job_is_named_at_once() -> None:
    bad: Any = {"jitter": "ful", "initial_delay": "soon", "retries": 3}

    assert list(
        faults_of(NewJob("charge", {}), NewJob("charge", {"a": {1}}, retry=bad, delay_seconds=math.nan))
    ) == [
        "jobs[1].input",
        "jobs[1].delay_seconds",
        "jobs[1].retry.jitter",
        "jobs[1].retry.initial_delay",
        "jobs[1].retry.retries",
    ]


def test_text_of_a_refusal_has_each_field_with_its_fault() -> None:
    with pytest.raises(
        ValueError, match=r"^jobs\[0\].kind: must be a text, not 5; jobs\[0\].retry.jitter: must be "
    ):
        new_job_messages([NewJob(5, {}, retry={"jitter": "ful"})])  # type: ignore[arg-type]


def test_input_may_be_anything_that_dict_takes_for_a_mapping() -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row = connection.execute("SELECT 7 AS cents").fetchone()
    connection.close()

    assert new_job_messages([NewJob("charge", row)])[0].input_json == '{"cents":7}'


def test_zero_seconds_are_sent_and_absent_ones_are_not() -> None:
    zero, absent = new_job_messages(
        [NewJob("charge", {}, delay_seconds=0, attempt_timeout_seconds=0), NewJob("charge", {})]
    )

    assert [zero.HasField("delay"), zero.HasField("attempt_timeout")] == [True, True]
    assert [absent.HasField("delay"), absent.HasField("attempt_timeout")] == [False, False]
