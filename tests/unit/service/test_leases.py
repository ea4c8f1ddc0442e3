"""Leases in responses: each says what its own grant says, whatever was written before it."""

import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import job_pb2

from broker.job import Grant
from broker.lifecycle.failure_events import error_detail, error_facts
from broker.lifecycle.tokens import TokenCodec
from broker.policy.decision import Failure
from broker.service.translate.failures import recorded_failure_message
from broker.service.translate.leases import LeaseWriter, most_bytes

CODEC = TokenCodec(b"k" * 32)
PLAIN = Grant(
    1, 10, 20, 20, '{"x":1}', None, None, None,
    0, "q", 5, "task", 1, 3, datetime(2026, 1, 1, tzinfo=UTC), None, None, None, None, None,
)  # fmt: skip
FULL = Grant(
    1, 11, (1 << 22) * 1500, 30, '{"y":"ü"}', "00-trace", "[1]", '{"error":"e","error_type":"E","status_code":503,"result":null}',
    5, "q2", 5, "http", 2, 4, datetime(2027, 1, 1, tzinfo=UTC), 7, "load", 1.25, "api", '{"team":"a"}',
)  # fmt: skip


def written(*grants: Grant) -> list[job_pb2.Lease]:
    [response] = LeaseWriter(CODEC, lease_seconds=30.5).responses(grants)
    return list(response.leases)


def test_a_lease_says_what_was_granted() -> None:
    assert written(FULL) == [
        job_pb2.Lease(
            lease_token=CODEC.issue(11, FULL.job_id, in_execution=True),
            job_id=FULL.job_id,
            queue="q2",
            kind="http",
            attempt=2,
            max_attempts=4,
            lease_expires_at=Timestamp(seconds=1798761600),
            lease_duration=Duration(seconds=1, nanos=250_000_000),
            input_json='{"y":"ü"}',
            execution_id=7,
            step="load",
            last_failure=job_pb2.Failure(message="e", type="E", status_code=503),
            checkpoint_json="[1]",
            traceparent="00-trace",
            attempt_timeout=Duration(seconds=1, nanos=250_000_000),
            dependency="api",
            labels={"team": "a"},
            created_at=Timestamp(seconds=1735689601, nanos=500_000_000),
        )
    ]


def test_a_lease_says_its_own_last_failure() -> None:
    failure = Failure("boom", "Boom", 503, timedelta(seconds=2), '{"n":1}', "at x")
    as_they_are_written = [
        error_detail(error_facts(attempt, failure._replace(message=message), "{}", None), elapsed)
        for attempt in (1, 2)
        for message in ("boom", "bang", "x" * 3000)
        for elapsed in (0.5, 17.25)
    ]
    as_they_were = ['{"attempt":1,"error":"old","error_type":"T","elapsed":1.0,"result":null,"policy":null}']

    for detail in (as_they_are_written + as_they_were) * 2:
        (lease,) = written(PLAIN._replace(last_failure=detail))
        assert lease.last_failure == recorded_failure_message(detail)


@pytest.mark.parametrize("size", [1900, 100_000])
@pytest.mark.parametrize("character", ["x", "😀"])
def test_what_is_remembered_of_last_failures_is_bounded(size: int, character: str) -> None:
    tracemalloc.start()

    for number in range(3 * 1024 * 2000 // size):
        failure = Failure(f"{number}{character}" + "x" * size, "Boom")
        written(PLAIN._replace(last_failure=error_detail(error_facts(1, failure, None, None), 0.5)))

    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6 * 1024 * 1024


def test_leases_that_differ_only_in_what_no_message_says_are_written_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Grant] = []
    make = LeaseWriter._common_to

    def count(self: LeaseWriter, grant: Grant) -> job_pb2.Lease:
        made.append(grant)
        return make(self, grant)

    monkeypatch.setattr(LeaseWriter, "_common_to", count)

    written(
        *(PLAIN._replace(policy_id=number % 2, priority=number % 3, stream=number) for number in range(9))
    )

    assert len(made) == 1


def test_a_lease_says_nothing_of_those_before_it() -> None:
    alone = [written(grant)[0] for grant in (PLAIN, FULL)]

    assert written(PLAIN, FULL, PLAIN, FULL, FULL._replace(queue="q"), PLAIN) == [
        *alone, *alone, written(FULL._replace(queue="q"))[0], alone[0]
    ]  # fmt: skip


def test_no_lease_is_larger_than_was_reckoned() -> None:
    labels = "{" + ",".join(f'"{number:063}":"{"ä" * 63}"' for number in range(16)) + "}"
    largest = FULL._replace(
        queue="q" * 128, kind="k" * 128, dependency="d" * 128, step="s" * 128, traceparent="t" * 256,
        input='"' + "€" * 1000 + '"', labels=labels,
    )  # fmt: skip

    assert written(largest)[0].ByteSize() <= most_bytes(largest) < 4 * written(largest)[0].ByteSize()
