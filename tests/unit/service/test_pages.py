"""Page tokens lead to where the page before ended, in the same list only."""

import pytest
from reprise.v1.job_pb2 import JOB_VIEW_FULL
from reprise.v1.playbook_service_pb2 import ListExecutionsRequest, ListPlaybooksRequest
from reprise.v1.queue_service_pb2 import JobFilter, ListJobsRequest

from broker.errors import Violation
from broker.service.pages import (
    fitting,
    int_position_of,
    page_size_of,
    page_token,
    text_position_of,
)


def test_a_token_leads_to_its_position_whatever_the_size_and_the_view() -> None:
    token = page_token(ListJobsRequest(filter=JobFilter(queue="q"), page_size=5), 2**62)

    follow = ListJobsRequest(filter=JobFilter(queue="q"), page_size=9, page_token=token, view=JOB_VIEW_FULL)

    assert int_position_of(follow, []) == 2**62


def test_a_position_may_be_a_text() -> None:
    token = page_token(ListPlaybooksRequest(), "täglich/report")

    assert text_position_of(ListPlaybooksRequest(page_token=token), []) == "täglich/report"


def test_the_last_page_has_no_token_and_the_first_no_position() -> None:
    assert page_token(ListJobsRequest(), None) == ""
    assert int_position_of(ListJobsRequest(), []) is None


@pytest.mark.parametrize(
    "token",
    [
        "*",
        "AAAA",
        "ä",
        page_token(ListJobsRequest(filter=JobFilter(queue="other")), 1),
        page_token(ListExecutionsRequest(), 1),
        page_token(ListJobsRequest(), "text"),
        page_token(ListJobsRequest(), -1),
        page_token(ListJobsRequest(), 2**63),
    ],
)
def test_a_token_of_anything_else_is_refused_by_name(token: str) -> None:
    violations: list[Violation] = []

    int_position_of(ListJobsRequest(page_token=token), violations)

    assert [violation.field for violation in violations] == ["page_token"]


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (1, 1), (1000, 1000), (2**31 - 1, 1000)])
def test_a_page_has_at_most_a_thousand_items(asked: int, given: int) -> None:
    assert page_size_of(ListJobsRequest(page_size=asked), []) == given


def test_a_page_holds_what_fits_and_at_least_one_item() -> None:
    items = [JobFilter(queue="x" * 100) for _ in range(5)]

    assert fitting(items, max_bytes=10) == 1
    assert fitting(items, max_bytes=250) == 2
    assert fitting(items, max_bytes=10_000) == 5
