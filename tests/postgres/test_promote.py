"""Jobs that are due: leased to the slots that are offered, the others available, each exactly once."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import errors

from broker.job import Arrival, NewJob, Taker
from broker.lifecycle import Lifecycle
from broker.store.promote import Offer, QueueOffer, promote
from broker.store.session import Row, Session
from tests.contract.tables import Tables
from tests.fixtures_database import MoveClock

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
WORKERS = [Taker(1, "worker-1", 30.0), Taker(2, "worker-2", 60.0)]


class Refusals(Session):
    """A session that counts the statements that were refused."""

    refused = 0

    async def rows(self, statement: str, arguments: Sequence[object] = ()) -> list[Row]:
        try:
            return await super().rows(statement, arguments)
        except errors.SerializationFailure:
            self.refused += 1
            raise


@pytest.fixture
async def counting(database_url: str) -> AsyncIterator[Refusals]:
    """A second session."""
    opened = Refusals(database_url)
    yield opened
    await opened.close()


def later(queue: str = "q", seconds: float = 10.0, priority: int = 0) -> NewJob:
    return NewJob(queue, "task", '{"a":1}', priority=priority, delay_seconds=seconds)


def offer(*slots: int, queues: tuple[str, ...] = ("q",)) -> Offer:
    """The slots for all of the queues, in their order."""
    return Offer([QueueOffer(name, 0, len(slots), rank) for rank, name in enumerate(queues)], slots, WORKERS)


async def test_due_jobs_go_to_the_slots_by_priority_and_age_and_the_others_wait(
    lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock
) -> None:
    new = [
        later(seconds=12),
        later(seconds=11),
        later(seconds=13, priority=5),
        later(seconds=14),
        later("other"),
        later(seconds=9999),
    ]
    last, middle, urgent, latest, other, not_due = (job.job_id for job in await lifecycle.enqueue(new))
    await move_clock(20)

    promoted = await promote(session, BEGINNING, 1000, offer(1, 2))

    assert [(lease.job_id, lease.stream) for lease in promoted.granted] == [(urgent, 1), (middle, 2)]
    assert promoted.jobs == 5
    of_q, of_other = sorted(promoted.arrivals, reverse=True)
    assert await tables.rows("SELECT job_id FROM noetl.ready WHERE queue = 'q' ORDER BY seq") == [
        (last,),
        (latest,),
    ]
    seq_of_last = await tables.value("SELECT min(seq) FROM noetl.ready WHERE queue = 'q'")
    assert of_q == Arrival("q", 0, seq_of_last, jobs=2)
    seq_of_other = await tables.value("SELECT seq FROM noetl.ready WHERE job_id = %s", other)
    assert of_other == Arrival("other", 0, seq_of_other, jobs=1)
    assert promoted.next.seconds == pytest.approx(9979, abs=30)
    assert promoted.next.floor == pytest.approx(await tables.now(), abs=timedelta(seconds=40))
    assert await tables.value("SELECT count(*) FROM noetl.delayed WHERE job_id = %s", not_due) == 1


async def test_a_lease_of_a_due_job_is_like_any_other(
    lifecycle: Lifecycle, session: Session, tables: Tables, move_clock: MoveClock
) -> None:
    (job,) = await lifecycle.enqueue([later()])
    await move_clock(20)

    (lease,) = (await promote(session, BEGINNING, 1000, offer(2))).granted

    now = await tables.now()
    assert (lease.queue, lease.kind, lease.input, lease.attempt) == ("q", "task", '{"a":1}', 1)
    assert (lease.expires_at - now).total_seconds() == pytest.approx(60, abs=30)
    assert await tables.story(job.job_id) == ["job_enqueued", "action_started"]
    (started,) = await tables.events(job.job_id, "action_started")
    assert started.result["worker_id"] == "worker-2"


async def test_queues_that_share_slots_are_served_in_their_order_whatever_the_priorities(
    lifecycle: Lifecycle, session: Session, move_clock: MoveClock
) -> None:
    new = [later("b", 10, priority=100), later("b", 11, priority=100), later("a", 12, priority=-100)]
    first_of_b, _, of_a = (job.job_id for job in await lifecycle.enqueue(new))
    await move_clock(20)

    promoted = await promote(session, BEGINNING, 1000, offer(1, 1, queues=("a", "b")))

    assert [lease.job_id for lease in promoted.granted] == [of_a, first_of_b]
    assert [queue for queue, *_ in promoted.arrivals] == ["b"]


async def test_a_job_that_is_older_than_where_bodies_are_looked_for_is_found_everywhere_and_moved_once(
    lifecycle: Lifecycle, counting: Refusals, tables: Tables, move_clock: MoveClock
) -> None:
    old, waiting = await lifecycle.enqueue([later(), later("other")])
    await move_clock(2 * 3600)

    promoted = await promote(counting, BEGINNING, 1000, offer(1))

    assert counting.refused == 1, "it lies within the reach, and this test shows nothing"
    assert [lease.job_id for lease in promoted.granted] == [old.job_id]
    assert await tables.rows("SELECT job_id FROM noetl.ready") == [(waiting.job_id,)]
    assert await tables.value("SELECT count(*) FROM noetl.delayed") == 0


async def test_two_brokers_that_promote_at_once_share_what_is_due(
    lifecycle: Lifecycle, session: Session, counting: Refusals, move_clock: MoveClock
) -> None:
    ids = [job.job_id for job in await lifecycle.enqueue([later(seconds=10), later(seconds=11)])]
    await move_clock(20)
    async with counting.transaction():
        theirs = await promote(counting, BEGINNING, 1, offer(1, 1))
        ours = await promote(session, BEGINNING, 1000, offer(2, 2))

    assert [lease.job_id for lease in (*theirs.granted, *ours.granted)] == ids
