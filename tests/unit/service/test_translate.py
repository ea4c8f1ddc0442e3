"""What callers send becomes the broker's own values, or a violation that names the field."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from reprise.v1 import job_pb2, retry_pb2

from broker.errors import Violation
from broker.policy.decision import (
    Decision,
    DelaySource,
    FailedAttempt,
    Failure,
    Reason,
    TraceStep,
    Verdict,
    decide,
)
from broker.policy.retry_policy import Jitter, RetryPolicy
from broker.service.translate.decisions import DecisionWriter, decision_message
from broker.service.translate.failures import FailureReader, read_failure, recorded_failure_message
from broker.service.translate.instants import duration_message, read_duration, read_timestamp
from broker.service.translate.retry_policies import read_retry_policy, retry_policy_message


def policy_violations(message: retry_pb2.RetryPolicy) -> list[tuple[str, str]]:
    violations: list[Violation] = []
    read_retry_policy(message, "jobs[3].retry", violations)
    return [(violation.field, violation.reason) for violation in violations]


def test_an_empty_policy_has_the_documented_defaults() -> None:
    violations: list[Violation] = []

    policy = read_retry_policy(retry_pb2.RetryPolicy(), "retry", violations)

    assert (policy, violations) == (RetryPolicy(), [])


def test_a_policy_comes_back_as_it_was_sent() -> None:
    sent = retry_pb2.RetryPolicy(
        max_attempts=5,
        initial_delay=Duration(seconds=2, nanos=500_000_000),
        backoff_multiplier=2.5,
        max_delay=Duration(seconds=90),
        jitter=retry_pb2.JITTER_FULL,
        retry_when="{{ status_code == 503 }}",
        stop_when="{{ attempt > 2 }}",
    )
    violations: list[Violation] = []

    policy = read_retry_policy(sent, "retry", violations)

    assert violations == []
    assert policy.jitter is Jitter.FULL
    assert retry_policy_message(policy) == sent


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (retry_pb2.RetryPolicy(max_attempts=0), "max_attempts"),
        (retry_pb2.RetryPolicy(max_attempts=1001), "max_attempts"),
        (retry_pb2.RetryPolicy(initial_delay=Duration(seconds=-1)), "initial_delay"),
        (retry_pb2.RetryPolicy(initial_delay=Duration(seconds=1, nanos=-1)), "initial_delay"),
        (retry_pb2.RetryPolicy(max_delay=Duration(seconds=31 * 86_400)), "max_delay"),
        (retry_pb2.RetryPolicy(max_delay=Duration(seconds=2**62)), "max_delay"),
        (retry_pb2.RetryPolicy(backoff_multiplier=0.5), "backoff_multiplier"),
        (retry_pb2.RetryPolicy(backoff_multiplier=float("nan")), "backoff_multiplier"),
        (retry_pb2.RetryPolicy(jitter=77), "jitter"),  # type: ignore[arg-type]
        (retry_pb2.RetryPolicy(retry_when="{{ nonsense == 1 }}"), "retry_when"),
        (retry_pb2.RetryPolicy(stop_when="{{ error == }}"), "stop_when"),
    ],
)
def test_a_wrong_policy_field_is_named_by_its_path(message: retry_pb2.RetryPolicy, field: str) -> None:
    assert policy_violations(message) == [(f"jobs[3].retry.{field}", "INVALID")]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (retry_pb2.RetryPolicy(delays=[Duration(seconds=1)]), "delays"),
        (retry_pb2.RetryPolicy(deadline=Duration(seconds=1)), "deadline"),
        (retry_pb2.RetryPolicy(rules=[retry_pb2.RetryRule()]), "rules"),
        (retry_pb2.RetryPolicy(max_crashes=0), "max_crashes"),
        (retry_pb2.RetryPolicy(honor_retry_after=True), "honor_retry_after"),
    ],
)
def test_a_policy_field_whose_turn_has_not_come_is_refused_by_name(
    message: retry_pb2.RetryPolicy, field: str
) -> None:
    assert policy_violations(message) == [(f"jobs[3].retry.{field}", "NOT_SUPPORTED_YET")]


def test_every_verdict_reason_and_delay_source_has_its_number_in_the_contract() -> None:
    for verdict in Verdict:
        for reason in Reason:
            for source in DelaySource:
                decided = Decision(verdict, reason, attempt=1, max_attempts=3, delay_source=source)
                message = decision_message(decided, None)
                assert job_pb2.Decision.Verdict.Name(message.verdict) == f"VERDICT_{verdict.name}"
                assert job_pb2.Decision.Reason.Name(message.reason) == f"REASON_{reason.name}"
                assert (
                    job_pb2.Decision.DelaySource.Name(message.delay_source) == f"DELAY_SOURCE_{source.name}"
                )


def test_the_trace_of_a_decision_is_sent_on_request_only() -> None:
    decided = Decision(
        Verdict.DEAD, Reason.STOP_WHEN, 1, 3, trace=(TraceStep("stop_when", "{{ true }}", "true"),)
    )

    assert not decision_message(decided, None).trace
    assert list(decision_message(decided, None, with_trace=True).trace) == [
        job_pb2.TraceStep(check="stop_when", text="{{ true }}", value="true")
    ]


def test_a_failure_is_cut_and_cleaned_and_never_refused() -> None:
    read = read_failure(
        job_pb2.Failure(
            message="ä" * 5000 + "\0", type="T\0" * 100, stack_trace="s\0" * 20_000, result_json="{bad"
        )
    )

    assert read.failure.message == "ä" * 4096
    assert read.failure.type == "T\N{REPLACEMENT CHARACTER}" * 64
    assert len(read.failure.stack_trace.encode()) in range(32 * 1024 - 3, 32 * 1024 + 1)
    assert read.failure.result_json is None
    assert read.result_left_out


def test_failures_are_read_alike_however_often_and_whatever_came_between() -> None:
    messages = [
        job_pb2.Failure(message="busy", status_code=503),
        job_pb2.Failure(message="busy"),
        job_pb2.Failure(message="busy", status_code=503, result_json="{"),
        job_pb2.Failure(message="x" * 4000, retry_after=Duration(seconds=1)),
    ]
    reader = FailureReader()

    for message in messages * 3:
        assert reader.read(message) == read_failure(message)


def test_what_is_remembered_of_failures_is_bounded() -> None:
    reader = FailureReader()
    tracemalloc.start()

    for number in range(6 * 1024 - 1):
        reader.read(job_pb2.Failure(message=f"{number}😀" + "x" * 1000))
    for number in range(10):
        reader.read(job_pb2.Failure(message=f"{number}", result_json=f'"{"x" * 1_000_000}"'))

    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6 * 1024 * 1024


def test_decisions_are_written_alike_whatever_was_written_before() -> None:
    failed = FailedAttempt(1, 3, timedelta(), "q", "k", Failure("m", "T", None, None, None, ""))
    retried, dead = decide(RetryPolicy(), failed, 0.5), decide(None, failed, 0.5)
    due_at = datetime(2026, 1, 1, tzinfo=UTC)
    writer = DecisionWriter()

    for decision, available_at, with_trace in [
        (retried, due_at, False),
        (retried, due_at + timedelta(seconds=1), False),
        (retried, None, True),
        (dead, None, True),
        (dead, None, False),
        (retried, due_at, True),
    ]:
        written = job_pb2.Decision()
        writer.write(written, decision, available_at, with_trace=with_trace)
        assert written == decision_message(decision, available_at, with_trace=with_trace)


def test_an_empty_message_becomes_the_type() -> None:
    assert read_failure(job_pb2.Failure(type="http.503")).failure.message == "http.503"


def test_a_result_too_large_is_left_out_and_says_so() -> None:
    read = read_failure(job_pb2.Failure(message="m", result_json='"' + "x" * 1024 * 1024 + '"'))

    assert read.failure.result_json is None
    assert read.result_left_out is not None
    assert "1048576" in read.result_left_out


@pytest.mark.parametrize(
    ("message", "retry_after"),
    [
        (job_pb2.Failure(), None),
        (job_pb2.Failure(retry_after=Duration(seconds=30)), timedelta(seconds=30)),
        (job_pb2.Failure(retry_after=Duration(seconds=-30)), timedelta()),
        (job_pb2.Failure(retry_after=Duration(seconds=1, nanos=-1)), None),
        (job_pb2.Failure(status=b"no status"), None),
        (job_pb2.Failure(status=status_pb2.Status(code=14).SerializeToString()), None),
    ],
)
def test_retry_after_is_taken_where_it_makes_sense(
    message: job_pb2.Failure, retry_after: timedelta | None
) -> None:
    assert read_failure(message).failure.retry_after == retry_after


def test_the_retry_info_of_a_grpc_downstream_counts_as_retry_after() -> None:
    packed = Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7)))
    serialized = status_pb2.Status(code=14, details=[Any(), packed]).SerializeToString()

    assert read_failure(job_pb2.Failure(status=serialized)).failure.retry_after == timedelta(seconds=7)


def test_a_recorded_failure_comes_back_whole() -> None:
    detail = (
        '{"attempt":1,"error":"boom","error_type":"http.503","status_code":503,"elapsed":0.1,'
        '"retry_after_seconds":1.5,"stack_trace":"at x,","result": {"n": 1e400} ,"policy":null}'
    )

    assert recorded_failure_message(detail) == job_pb2.Failure(
        message="boom",
        type="http.503",
        status_code=503,
        retry_after=Duration(seconds=1, nanos=500_000_000),
        result_json='{"n": 1e400}',
        stack_trace="at x,",
    )


@pytest.mark.parametrize(
    ("seconds", "nanos", "problem"),
    [
        (0, 999_999_999, "must be at least 1 s"),
        (3600, 1_000, "must be at most 3600 s"),
        (1, -1, "is not a valid duration"),
        (2**62, 0, "is not a valid duration"),
        (5, 1_000_000_000, "is not a valid duration"),
    ],
)
def test_a_duration_out_of_range_is_named(seconds: int, nanos: int, problem: str) -> None:
    violations: list[Violation] = []
    hour = timedelta(hours=1)

    read_duration(
        Duration(seconds=seconds, nanos=nanos), "wait", violations, least=timedelta(seconds=1), most=hour
    )

    assert violations == [Violation("wait", problem)]


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800])
def test_a_timestamp_outside_of_the_calendar_is_named(seconds: int) -> None:
    violations: list[Violation] = []

    read_timestamp(Timestamp(seconds=seconds), "run_at", violations)

    assert violations == [Violation("run_at", "is not a valid timestamp")]


@pytest.mark.parametrize(
    "instant", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
)
def test_the_first_and_the_last_instant_are_read(instant: datetime) -> None:
    message = Timestamp()
    message.FromDatetime(instant)

    assert read_timestamp(message, "run_at", []) == instant


def test_a_duration_keeps_its_microseconds() -> None:
    assert read_duration(duration_message(timedelta(microseconds=1_500_001)), "delay", []) == timedelta(
        microseconds=1_500_001
    )
