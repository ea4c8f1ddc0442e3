"""Every transition has one event, wherever its row lies: in the job, the lease, or the log."""

import itertools

import pytest

from broker.job import Grant, NewJob, Taker
from broker.lifecycle import Lifecycle
from broker.lifecycle.complete import Result
from broker.lifecycle.fail import FailedResult
from broker.lifecycle.judge import Reported
from broker.lifecycle.tokens import LeaseRef
from broker.policy.decision import Failure
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.store.grant import Lane, grant
from broker.store.session import Session
from tests.contract.tables import Tables

POLICY = RetryPolicy(max_attempts=3)


@pytest.fixture
async def lease(lifecycle: Lifecycle, session: Session) -> Grant:
    """The first attempt of a job that may have three."""
    await lifecycle.enqueue([NewJob("q", "task", "{}", policy=to_json(POLICY), max_attempts=3)])
    (granted,), _ = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])
    return granted


def ref(lease: Grant) -> LeaseRef:
    return LeaseRef(lease.lease_id, lease.job_id, in_execution=False)


async def end(lifecycle: Lifecycle, lease: Grant, verb: str) -> None:
    match verb:
        case "complete":
            await lifecycle.complete([Result(ref(lease), "1")])
        case "fail":
            await lifecycle.fail([FailedResult(ref(lease), Reported(Failure("boom", "Boom")))])
        case _:
            await lifecycle.release([ref(lease)])


async def starts(tables: Tables) -> list[tuple[object, ...]]:
    return await tables.rows(
        """SELECT event_id, job_id, attempt, worker_id, created_at, result::text FROM noetl.event
        WHERE event_type = 'action_started'"""
    )


async def test_each_transition_has_an_id_and_an_instant_of_its_own(
    lifecycle: Lifecycle, tables: Tables, lease: Grant
) -> None:
    await end(lifecycle, lease, "fail")

    events = await tables.rows("SELECT event_id, event_type, created_at FROM noetl.event")

    assert [event[1] for event in events] == [
        "job_enqueued",
        "action_started",
        "action_error",
        "action_retry",
    ]
    assert len({event[0] for event in events}) == 4
    assert [event[2] for event in events] == sorted(event[2] for event in events)


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_the_start_of_an_attempt_reads_the_same_while_it_runs_and_afterwards(
    lifecycle: Lifecycle, tables: Tables, lease: Grant, verb: str
) -> None:
    running = await starts(tables)

    await end(lifecycle, lease, verb)

    assert len(running) == 1
    assert running[0][1:4] == (lease.job_id, 1, "worker")
    assert await starts(tables) == running


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_an_attempt_that_an_older_broker_started_keeps_its_one_start(
    lifecycle: Lifecycle, session: Session, tables: Tables, lease: Grant, verb: str
) -> None:
    await session.rows("UPDATE lease SET worker_id = NULL, max_attempts = NULL")
    await session.rows(
        """INSERT INTO event_log (event_id, job_id, kind, attempt, max_attempts, worker_id)
        SELECT noetl.next_id(), job_id, 2, attempt, 3, 'old worker' FROM lease"""
    )
    running = await starts(tables)

    await end(lifecycle, lease, verb)

    assert [start[3] for start in running] == ["old worker"]
    assert await starts(tables) == running


async def test_ids_of_one_transaction_rise_also_where_their_numbers_begin_anew(session: Session) -> None:
    ids: list[int] = []
    async with session.transaction():
        for number in (2**22 - 4096, 0, 4096):
            await session.rows("SELECT setval('noetl.id_seq', %b::int8)", (2**22 + number - 4096,))
            (row,) = await session.rows("SELECT noetl.next_id()")
            ids.append(row[0])

    assert [id_ % 2**22 for id_ in ids] == [2**22 - 4096, 0, 4096]
    assert ids == sorted(ids)
    assert len(set(ids)) == 3


async def test_ids_of_statements_do_not_meet_within_a_millisecond(session: Session) -> None:
    # Each takes as many as it needs of the 4096 ids that it may use.
    (row,) = await session.rows(
        "SELECT array_agg(id ORDER BY id) FROM (SELECT noetl.next_id() AS id FROM generate_series(1, 500)) n"
    )
    firsts = row[0]

    assert min(later - earlier for earlier, later in itertools.pairwise(firsts)) >= 4096
