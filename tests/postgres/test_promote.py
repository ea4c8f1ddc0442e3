"""Jobs that are due: leased at once to those who are offered them, the others available, each exactly once."""

from datetime import UTC, datetime

import pytest

from broker.job import NewJob, Taker
from broker.lifecycle import Lifecycle
from broker.store.grant import REACH
from broker.store.promote import Offer, OfferedQueue, promote
from broker.store.session import Session
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
WORKERS = [Taker(1, "worker-1", 30.0), Taker(2, "worker-2", 60.0)]


def later(queue: str = "q", seconds: float = 10.0, priority: int = 0) -> NewJob:
    return NewJob(queue, "task", '{"a":1}', priority=priority, delay_seconds=seconds)


def offer(*slots: int, queues: tuple[str, ...] = ("q",)) -> Offer:
    """The slots for all of the queues, in their order."""
    return Offer(
        [OfferedQueue(name, 0, len(slots), rank) for rank, name in enumerate(queues)], slots, WORKERS
    )


async def test_due_jobs_go_to_the_slots_by_priority_and_age_and_the_others_wait(
    lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock
) -> None:
    new = [
        later(seconds=12),
        later(seconds=11),
        later(seconds=13, priority=5),
        later("other"),
        later(seconds=99),
    ]
    last, middle, urgent, other, not_due = (job.job_id for job in await lifecycle.enqueue(new))
    await move_clock(20)

    promoted = await promote(session, BEGINNING, 1000, offer(1, 2))

    assert [(lease.job_id, lease.stream) for lease in promoted.granted] == [(urgent, 1), (middle, 2)]
    assert promoted.jobs == 4
    assert sorted((queue, priority) for queue, priority, _ in promoted.arrivals) == [("other", 0), ("q", 0)]
    assert promoted.next.seconds == pytest.approx(79, abs=1)
    standing = [await tables.standing(job_id) for job_id in (urgent, middle, last, other, not_due)]
    assert standing == ["leased 1/1", "leased 1/1", "queued 0/1", "queued 0/1", "queued 0/1"]


async def test_a_lease_of_a_due_job_is_like_any_other(
    lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock
) -> None:
    (job,) = await lifecycle.enqueue([later()])
    await move_clock(20)

    (lease,) = (await promote(session, BEGINNING, 1000, offer(2))).granted

    now = await tables.now()
    assert (lease.queue, lease.kind, lease.input, lease.attempt) == ("q", "task", '{"a":1}', 1)
    assert (lease.expires_at - now).total_seconds() == pytest.approx(60, abs=1)
    assert await tables.story(job.job_id) == ["job_enqueued", "action_started"]
    (started,) = await tables.events(job.job_id, "action_started")
    assert started.result["worker_id"] == "worker-2"


async def test_queues_that_share_slots_are_served_in_their_order(
    lifecycle: Lifecycle, session: Session, move_clock: MoveClock
) -> None:
    new = [later("b", 10), later("b", 11), later("a", 12)]
    first_of_b, _, of_a = (job.job_id for job in await lifecycle.enqueue(new))
    await move_clock(20)

    promoted = await promote(session, BEGINNING, 1000, offer(1, 1, queues=("a", "b")))

    assert {lease.job_id for lease in promoted.granted} == {of_a, first_of_b}
    assert [queue for queue, *_ in promoted.arrivals] == ["b"]


async def test_a_job_that_is_older_than_where_bodies_are_looked_for_is_found_everywhere(
    lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock
) -> None:
    (old,) = await lifecycle.enqueue([later()])
    await move_clock(2 * 3600)
    nothing_due = await promote(session, await tables.now(), 1000, Offer())
    now_id = nothing_due.now_id
    assert old.job_id < now_id - REACH

    promoted = await promote(session, BEGINNING, 1000, offer(1), now_id)

    assert [lease.job_id for lease in promoted.granted] == [old.job_id]


async def test_two_brokers_that_promote_at_once_share_what_is_due(
    lifecycle: Lifecycle, session: Session, move_clock: MoveClock, database_url: str
) -> None:
    ids = [job.job_id for job in await lifecycle.enqueue([later(), later()])]
    await move_clock(20)
    other = Session(database_url)
    async with other.transaction():
        theirs = await promote(other, BEGINNING, 1, offer(1, 1))
        ours = await promote(session, BEGINNING, 1000, offer(2, 2))
    await other.close()

    assert [lease.job_id for lease in (*theirs.granted, *ours.granted)] == ids
