"""Leases in the memory of one broker: bounded, whoever ends them where."""

import asyncio
from datetime import UTC, datetime

import pytest

from broker.dispatcher.holdings import Holdings
from broker.dispatcher.stream import LeaseStream, Notice
from broker.ids import IDS_PER_MILLISECOND
from broker.job import Delivery, Grant, Terms, deliveries_of


def grant(lease_id: int) -> Grant:
    return Grant(
        1, lease_id, 2, 3, "x" * 1000, None, "checkpoint", "failure",
        0, "q", 5, "task", 1, 3, datetime(2026, 1, 1, tzinfo=UTC), None, None, None, None, None,
    )  # fmt: skip


def held(*lease_ids: int) -> tuple[Holdings, LeaseStream]:
    holdings, stream = Holdings(), LeaseStream(1, "worker", ("q",), 30.0)
    for lease_id in lease_ids:
        holdings.add(stream, [grant(lease_id)])
    return holdings, stream


async def test_what_a_lease_carries_is_not_kept_while_it_runs() -> None:
    _, stream = held(1)

    terms = Terms("q", 5, "task", 1, 3)
    assert stream.unreceived == {1: Delivery(1, 2, None, datetime(2026, 1, 1, tzinfo=UTC), terms)}


async def test_terms_that_leases_have_in_common_are_kept_once() -> None:
    first, second, other = deliveries_of([grant(1), grant(2), grant(3)._replace(attempt=2)])

    assert first.terms is second.terms
    assert (first.terms.attempt, other.terms.attempt) == (1, 2)


async def test_elapsed_goes_on_while_a_lease_is_held_and_prolonged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    holdings, stream = Holdings(), LeaseStream(1, "worker", ("q",), 30.0)
    lease = grant(7000 * IDS_PER_MILLISECOND + 5)._replace(job_id=2000 * IDS_PER_MILLISECOND + 9)
    holdings.add(stream, [lease])

    now += 100
    holdings.confirmed([lease.lease_id])
    now += 50

    assert holdings.facts_of([lease.lease_id])[lease.lease_id].elapsed_seconds == 5 + 150


async def test_facts_are_known_of_what_is_held_of_jobs_of_their_own() -> None:
    holdings, stream = held(1, 2)
    holdings.add(stream, [grant(3)._replace(execution_id=7)])
    holdings.ended([2])

    assert list(holdings.facts_of([1, 2, 3, 99])) == [1]


async def test_what_a_client_that_closed_its_side_gets_counts_as_received() -> None:
    holdings, stream = Holdings(), LeaseStream(1, "worker", ("q",), 30.0, polls=True)

    holdings.add(stream, [grant(1)])

    assert stream.unreceived == {}


async def test_a_prolonged_lease_has_arrived() -> None:
    holdings, stream = held(1, 2)

    holdings.confirmed([2, 99])

    assert list(stream.unreceived) == [1]


async def test_an_ended_lease_is_neither_given_back_nor_announced() -> None:
    holdings, stream = held(1)

    holdings.ended([1, 99])
    holdings.lost([1])
    holdings.cancelled([1])

    assert (stream.unreceived, stream.notices, len(holdings)) == ({}, [], 0)


async def test_a_lost_lease_is_announced_once_and_not_given_back() -> None:
    holdings, stream = held(1)

    holdings.lost([1])
    holdings.lost([1])

    assert [(lease.lease_id, notice) for lease, notice in stream.notices] == [(1, Notice.LOST)]
    assert stream.unreceived == {}


async def test_a_cancelled_lease_is_announced_and_still_held() -> None:
    holdings, stream = held(1)

    holdings.cancelled([1])

    assert [notice for _, notice in stream.notices] == [Notice.CANCELLED]
    assert len(holdings) == 1


async def test_leases_of_streams_that_are_over_are_forgotten() -> None:
    holdings, stream = held(1, 2)
    stream.over = True

    holdings.forget()

    assert len(holdings) == 0


async def test_leases_of_which_nothing_is_heard_any_more_are_forgotten() -> None:
    holdings, _ = held(1, 2)

    holdings.forget()
    assert len(holdings) == 2
    holdings.forget(seconds=-1)
    assert len(holdings) == 0


async def test_what_is_forgotten_is_not_given_back_either() -> None:
    holdings, stream = held(1, 2)

    holdings.forget(seconds=-1)

    assert stream.unreceived == {}
