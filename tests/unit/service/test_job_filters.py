"""What a JobFilter asks for becomes a range of ids, criteria, or a violation that names the field."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import job_pb2
from reprise.v1.queue_service_pb2 import JobFilter

from broker.errors import Violation
from broker.service.translate.job_filters import JobQuery, read_job_filter
from broker.store.job_records import Criteria
from broker.store.job_sources import IdRange

_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
_ALL = IdRange(0, 2**63 - 1)


def read(message: JobFilter) -> JobQuery:
    violations: list[Violation] = []
    query = read_job_filter(message, "filter", violations)
    assert violations == []
    return query


def at(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def test_an_empty_filter_asks_for_every_job() -> None:
    assert read(JobFilter()) == JobQuery(Criteria(), None, _ALL)


def test_every_field_is_asked_for() -> None:
    query = read(
        JobFilter(
            job_ids=[3, 1],
            queue="q",
            kind="k",
            statuses=[job_pb2.JOB_STATUS_DEAD, job_pb2.JOB_STATUS_DEAD],
            execution_id=7,
            dependency="d",
            failure_type="f",
            labels={"a": "b"},
        )
    )

    criteria = Criteria("q", "k", 7, "d", '{"a": "b"}', ("dead",), "f")
    assert query == JobQuery(criteria, (3, 1), _ALL)


@pytest.mark.parametrize("microseconds", [0, 1, 999])
def test_after_an_instant_begins_with_the_next_millisecond(microseconds: int) -> None:
    after = at(_EPOCH + timedelta(milliseconds=5, microseconds=microseconds))

    assert read(JobFilter(created_after=after)).within.lowest == 6 << 22


@pytest.mark.parametrize(("microseconds", "first_excluded"), [(0, 5), (1, 6), (999, 6)])
def test_before_an_instant_ends_with_the_last_whole_millisecond(
    microseconds: int, first_excluded: int
) -> None:
    before = at(_EPOCH + timedelta(milliseconds=5, microseconds=microseconds))

    assert read(JobFilter(created_before=before)).within.below == first_excluded << 22


def test_instants_beyond_what_ids_can_say_are_bounded() -> None:
    first, last = at(datetime(1, 1, 1, tzinfo=UTC)), at(datetime(9999, 12, 31, tzinfo=UTC))

    assert read(JobFilter(created_after=first, created_before=last)).within == _ALL
    assert read(JobFilter(created_after=last, created_before=first)).within == IdRange(2**63 - 1, 0)
