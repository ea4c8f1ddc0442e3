"""When exactly a lease ends: by the statement that takes its row, and by nothing before it."""

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from broker import timers
from broker.dispatcher.holdings import Holdings
from broker.dispatcher.stream import LeaseStream
from broker.errors import Unavailable
from broker.job import Delivery, Grant, NewJob, Outcome, Taker, deliveries_of
from broker.lifecycle import Lifecycle
from broker.lifecycle.complete import Result
from broker.lifecycle.extend import Heartbeat
from broker.lifecycle.fail import FailAnswer, FailedResult
from broker.lifecycle.judge import Reported
from broker.lifecycle.tokens import LeaseRef
from broker.policy.decision import Failure
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.store import finish
from broker.store.events import EventKind
from broker.store.grant import Chosen, Lane, floor_seconds_ago, grant
from broker.store.session import Session
from broker.store.sweep import Place, expired
from broker.timers import Reaper
from tests.contract.playbooks.catalog import ONE_STEP, PATH
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
async def lease(lifecycle: Lifecycle, session: Session) -> Grant:
    """A lease of 30 s on a job of three attempts."""
    await lifecycle.enqueue([NewJob("q", "task", "{}", policy=to_json(RetryPolicy()), max_attempts=3)])
    (granted,), _ = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])
    return granted


def ref(lease: Grant) -> LeaseRef:
    return LeaseRef(lease.lease_id, lease.job_id, in_execution=False)


def failed(lease: Grant) -> FailedResult:
    return FailedResult(ref(lease), Reported(Failure("boom", "Boom", None, None, None, "")))


@pytest.mark.parametrize("verb", ["complete", "fail", "release", "extend"])
async def test_a_verb_that_still_finds_the_lease_succeeds_also_after_its_expiry(
    lifecycle: Lifecycle, lease: Grant, move_clock: MoveClock, verb: str
) -> None:
    await move_clock(3600)

    match verb:
        case "complete":
            (outcome,) = await lifecycle.complete([Result(ref(lease), "1")])
        case "fail":
            outcome = (await lifecycle.fail([failed(lease)]))[0].outcome
        case "release":
            (outcome,) = await lifecycle.release([ref(lease)])
        case _:
            outcome = (await lifecycle.extend(Heartbeat([ref(lease)], [None], 30.0)))[0].outcome

    assert outcome == Outcome.OK


async def test_the_sweep_checks_expiry_again_in_the_statement_that_takes_the_lease(
    lifecycle: Lifecycle, session: Session, lease: Grant, move_clock: MoveClock, database_url: str
) -> None:
    await move_clock(31)
    assert (await expired(session, Place(BEGINNING), 10)).lease_ids == [lease.lease_id]
    await lifecycle.extend(Heartbeat([ref(lease)], [None], 30.0))

    await lifecycle.expire([lease.lease_id])

    assert await Tables(database_url).standing(lease.job_id) == "leased 1/3"
    assert await lifecycle.complete([Result(ref(lease), "1")]) == [Outcome.OK]


async def test_an_expiry_that_comes_after_another_verb_changes_nothing(
    lifecycle: Lifecycle, lease: Grant, move_clock: MoveClock, database_url: str
) -> None:
    await move_clock(31)
    await lifecycle.complete([Result(ref(lease), "1")])

    await lifecycle.expire([lease.lease_id])

    assert await Tables(database_url).story(lease.job_id) == [
        "job_enqueued",
        "action_started",
        "action_completed",
    ]


async def test_leases_that_expired_at_one_instant_and_are_left_to_others_hide_none_behind_them(
    lifecycle: Lifecycle, session: Session, move_clock: MoveClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "_BATCH", 2)
    await lifecycle.enqueue([NewJob("q", "task", "{}")] * 4)
    together, _ = await grant(session, [Lane("q", 0, 0, 3, 0)], [1] * 3, [Taker(1, "worker", 30.0)])
    later, _ = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 40.0)])
    assert len({lease.expires_at for lease in together}) == 1
    await move_clock(60)
    found: list[int] = []

    async def leave(lease_ids: list[int]) -> None:
        found.extend(lease_ids)

    await Reaper(session, leave)()

    assert found == [lease.lease_id for lease in together + later]


async def test_two_sweeps_that_meet_expire_a_lease_once(
    lifecycle: Lifecycle, lease: Grant, move_clock: MoveClock, database_url: str
) -> None:
    await move_clock(31)

    await lifecycle.expire([lease.lease_id])
    await lifecycle.expire([lease.lease_id])

    assert await Tables(database_url).standing(lease.job_id) == "retry 1/3"
    assert len(await Tables(database_url).events(lease.job_id, "action_error")) == 1


@pytest.mark.parametrize("often", [False, True])
async def test_a_break_takes_nothing_that_was_prolonged_since_its_delivery(
    session: Session, lifecycle: Lifecycle, lease: Grant, database_url: str, often: bool
) -> None:
    await lifecycle.extend(Heartbeat([ref(lease)], [None], 60.0))
    as_granted = [lease.expires_at]

    if often:
        stored = finish.FailedLease(lease.lease_id, 1.0, "{}", "{}")
        assert await finish.fail(session, [stored], granted_until=as_granted) == {}
    else:
        assert await finish.release(session, [lease.lease_id], "break", granted_until=as_granted) == {}

    assert await Tables(database_url).standing(lease.job_id) == "leased 1/3"


async def test_a_lease_without_the_means_to_prolong_it_ends_when_its_attempt_must(
    lifecycle: Lifecycle, session: Session
) -> None:
    await lifecycle.enqueue([NewJob("q", "task", "{}", attempt_timeout_seconds=5.0)])

    (granted,), _ = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])

    lasts = await session.row("SELECT extract(epoch FROM expires_at - noetl.clock())::float8 FROM lease")
    assert lasts is not None
    assert lasts[0] == pytest.approx(5.0, abs=1.0)
    assert granted.attempt_timeout_seconds == 5.0


@pytest.mark.parametrize("apart", ["none", "all", "odd"])
async def test_a_lease_brings_the_last_failure_however_many_there_were_and_whoever_wrote_them(
    lifecycle: Lifecycle, session: Session, tables: Tables, apart: str
) -> None:
    policy = RetryPolicy(max_attempts=20, initial_delay=timedelta())
    await lifecycle.enqueue([NewJob("q", "task", "{}", policy=to_json(policy), max_attempts=20)])
    brought: list[str | None] = []

    for number in range(12):
        (granted,), _ = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])
        brought.append(granted.last_failure)
        await lifecycle.fail([FailedResult(ref(granted), Reported(Failure(f"failure {number}", "Boom")))])
        if apart == "all" or (apart == "odd" and number % 2):
            await tables.write_errors_apart()

    assert brought[0] is None
    assert [json.loads(detail or "{}").get("error") for detail in brought[1:]] == [
        f"failure {number}" for number in range(11)
    ]


async def test_as_many_deliveries_go_back_as_a_stream_had(lifecycle: Lifecycle, session: Session) -> None:
    for _ in range(3):
        await lifecycle.enqueue([NewJob("q", "task", "{}")] * 1000)
    deliveries: list[Delivery] = []
    wanted = [Lane("q", 0, 0, 500, 0)], [1] * 500, [Taker(1, "worker", 30.0)]
    while granted := (await grant(session, *wanted)).leases:
        deliveries += deliveries_of(granted)

    await lifecycle.give_back(deliveries)

    (counts,) = await session.rows(
        """SELECT count(*), count(DISTINCT seq), (SELECT count(*) FROM lease),
          (SELECT count(DISTINCT event_id) FROM event_log) FROM ready"""
    )
    assert counts == (3000, 3000, 0, 3000)


async def test_a_connection_that_jobs_of_their_own_have_lost_holds_up_no_lease_of_an_execution(
    lifecycle: Lifecycle, session: Session, tables: Tables
) -> None:
    await lifecycle.release([LeaseRef(1, 1, in_execution=False)])
    await tables.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'reprise'"
    )
    await lifecycle.executions.register(ONE_STEP)
    await lifecycle.executions.start(PATH, 0, "{}", None)
    await lifecycle.enqueue([NewJob("default", "task", "{}")])
    granted, _ = await grant(session, [Lane("default", 0, 0, 2, 0)], [1, 1], [Taker(1, "worker", 30.0)])
    own, of_execution = sorted(granted, key=lambda lease: lease.execution_id is not None)

    with pytest.raises(Unavailable):
        await lifecycle.give_back(deliveries_of(granted))

    assert await tables.standing(own.job_id) == "leased 1/1"
    assert await tables.standing(of_execution.job_id) == "queued 0/1"


async def test_heartbeats_with_large_checkpoints_share_no_statement(
    lifecycle: Lifecycle, session: Session, tables: Tables
) -> None:
    await lifecycle.enqueue([NewJob("q", "task", "{}")] * 401)
    (first, *others), _ = await grant(
        session, [Lane("q", 0, 0, 401, 0)], [1] * 401, [Taker(1, "worker", 30.0)]
    )
    checkpoint = json.dumps("x" * 64 * 1024)

    async with tables.leasing_held_back():
        waits = asyncio.create_task(lifecycle.extend(Heartbeat([ref(first)], [None], 30.0)))
        await eventually(tables.somebody_waits_for_a_lock)
        calls = [
            Heartbeat([ref(lease) for lease in some], [checkpoint] * 200, 30.0)
            for some in (others[:200], others[200:])
        ]
        extending = [asyncio.create_task(lifecycle.extend(call)) for call in calls]
        await asyncio.sleep(0)
    await asyncio.gather(waits, *extending)

    # What one statement writes has the mark of one transaction.
    assert await tables.value("SELECT count(DISTINCT xmin::text) FROM noetl.checkpoint") == 2


async def test_what_lies_behind_the_floor_is_not_looked_at(lifecycle: Lifecycle, session: Session) -> None:
    await lifecycle.enqueue([NewJob("q", "task", "{}")])
    ahead = await floor_seconds_ago(session, -60)

    ahead_of_it = await grant(session, [Lane("q", 0, ahead, 1, 0)], [1], [Taker(1, "worker", 30.0)])
    before_it = await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])

    assert [len(granted.leases) for granted in (ahead_of_it, before_it)] == [0, 1]


async def test_a_job_much_older_than_its_place_in_the_lane_is_leased_with_the_others(
    lifecycle: Lifecycle, session: Session, lease: Grant, move_clock: MoveClock
) -> None:
    await move_clock(2 * 24 * 3600)
    await lifecycle.release([ref(lease)])  # it waits at the tail now, under its id of two days ago
    await lifecycle.enqueue([NewJob("q", "task", '{"fresh": true}')])
    floor = await floor_seconds_ago(session, 60)

    granted, _ = await grant(session, [Lane("q", 0, floor, 2, 0)], [1, 1], [Taker(1, "worker", 30.0)])

    assert [(lease.job_id == leased.job_id, leased.input) for leased in granted] == [
        (True, "{}"),
        (False, '{"fresh": true}'),
    ]


async def test_the_leases_of_one_statement_go_to_their_slots_in_order(
    lifecycle: Lifecycle, session: Session
) -> None:
    await lifecycle.enqueue(
        [NewJob("a", "task", "{}", priority=1), NewJob("a", "task", "{}"), NewJob("b", "task", "{}")]
    )
    takers = [Taker(7, "seven", 10.0), Taker(8, "eight", 20.0)]
    lanes = [Lane("a", 0, 0, 2, 0), Lane("a", 1, 0, 2, 0), Lane("b", 0, 0, 2, 2)]

    granted, _ = await grant(session, lanes, [7, 8, 8, 7], takers)

    assert [(lease.queue, lease.priority, lease.stream) for lease in granted] == [
        ("a", 1, 7),
        ("a", 0, 8),
        ("b", 0, 8),
    ]
    lasts = await session.rows("SELECT lease_seconds, worker_id FROM lease ORDER BY lease_id")
    assert lasts == [(10.0, "seven"), (20.0, "eight"), (20.0, "eight")]


async def test_queues_of_one_share_are_taken_in_their_order_and_no_more_than_its_quota(
    lifecycle: Lifecycle, session: Session
) -> None:
    await lifecycle.enqueue(
        [
            NewJob("later", "task", "{}", priority=9),
            NewJob("first", "task", "{}"),
            NewJob("later", "task", "{}"),
            NewJob("first", "task", "{}", priority=1),
        ]
    )
    lanes = [Lane("first", 0, 0, 3, 0, 0), Lane("first", 1, 0, 3, 0, 0)]
    lanes += [Lane("later", 9, 0, 3, 0, 1), Lane("later", 0, 0, 3, 0, 1)]

    granted, _ = await grant(session, lanes, [7, 8, 7], [Taker(7, "seven", 10.0), Taker(8, "eight", 10.0)])

    assert [(lease.queue, lease.priority, lease.stream) for lease in granted] == [
        ("first", 1, 7),
        ("first", 0, 8),
        ("later", 9, 7),
    ]


async def test_locked_jobs_are_passed_over_and_others_taken(
    lifecycle: Lifecycle, session: Session, database_url: str
) -> None:
    first, second = await lifecycle.enqueue([NewJob("q", "task", "{}"), NewJob("q", "task", "{}")])
    other = Session(database_url)
    async with other.transaction():
        await other.rows("SELECT FROM noetl.ready WHERE job_id = %b FOR UPDATE", (first.job_id,))

        granted, _ = await grant(session, [Lane("q", 0, 0, 2, 0)], [1, 1], [Taker(1, "worker", 30.0)])

    await other.close()
    assert [lease.job_id for lease in granted] == [second.job_id]


async def test_how_a_lease_was_completed_is_told_without_its_result(
    lifecycle: Lifecycle, session: Session, lease: Grant
) -> None:
    await lifecycle.complete([Result(ref(lease), json.dumps("large"))])

    spent = await finish.spent(session, [(lease.job_id, lease.lease_id)])

    ended = finish.SpentLease(lease.lease_id, EventKind.ACTION_COMPLETED, None)
    assert spent == {lease.lease_id: [ended]}


@pytest.mark.parametrize("held", [0, 1, 3, 4])
async def test_a_statement_of_several_lanes_tells_what_it_chose_where_another_one_holds_some_of_it(
    lifecycle: Lifecycle, session: Session, database_url: str, held: int
) -> None:
    jobs = [NewJob("q", "task", "{}", priority) for priority in (5, 5, 5, 0, 0)]
    ids = [job.job_id for job in await lifecycle.enqueue(jobs)]
    *_, last_of_the_first, _, last = await session.rows("SELECT seq FROM ready ORDER BY priority DESC, seq")
    other = Session(database_url)
    async with other.transaction():
        await other.rows("SELECT FROM noetl.ready WHERE job_id = ANY(%b) FOR UPDATE", (ids[:held],))

        leases, chosen = await grant(
            session, [Lane("q", 0, 0, 4, 0), Lane("q", 5, 0, 4, 0)], [1] * 4, [Taker(1, "worker", 30.0)]
        )

    await other.close()
    assert [lease.job_id for lease in leases] == ids[held:4]
    seqs = {5: last_of_the_first[0], 0: last[0] - 1}
    told = [Chosen("q", 5, seqs[5], 3), Chosen("q", 0, seqs[0], 1)]
    assert sorted(chosen, key=lambda lane: -lane.priority) == (told if held else [])


async def test_what_is_remembered_of_a_lease_is_what_the_database_knows_of_it(
    lifecycle: Lifecycle, session: Session, move_clock: MoveClock
) -> None:
    policy = to_json(RetryPolicy())
    await lifecycle.enqueue([NewJob("q", "task", "{}", 5, policy, 3), NewJob("q", "other", "{}")])
    await move_clock(90)
    granted, _ = await grant(
        session, [Lane("q", 5, 0, 2, 0), Lane("q", 0, 0, 2, 0)], [1, 1], [Taker(1, "worker", 30.0)]
    )
    holdings = Holdings()
    holdings.add(LeaseStream(1, "worker", ("q",), 30.0), granted)

    remembered = holdings.facts_of([lease.lease_id for lease in granted])

    known = await finish.facts(session, [lease.lease_id for lease in granted])
    assert len(known) == 2
    for lease_id, facts in known.items():
        assert remembered[lease_id].elapsed_seconds == pytest.approx(facts.elapsed_seconds, abs=5)
        assert facts.elapsed_seconds == pytest.approx(90, abs=5)
        assert remembered[lease_id]._replace(elapsed_seconds=facts.elapsed_seconds) == facts


class Memory:
    """Facts that are remembered, whatever the database says meanwhile."""

    def __init__(self, *facts: finish.Facts) -> None:
        self._facts = {fact.lease_id: fact for fact in facts}

    def facts_of(self, lease_ids: Iterable[int]) -> dict[int, finish.Facts]:
        return {lease_id: self._facts[lease_id] for lease_id in lease_ids if lease_id in self._facts}


async def test_what_is_remembered_of_a_lease_is_not_read_again(
    lifecycle: Lifecycle, session: Session, lease: Grant, tables: Tables
) -> None:
    known = await finish.facts(session, [lease.lease_id])
    lifecycle.recall_from(Memory(known[lease.lease_id]._replace(elapsed_seconds=4711.0)))

    (answer,) = await lifecycle.fail([failed(lease)])

    assert answer.outcome == Outcome.OK
    (error,) = await tables.events(lease.job_id, "action_error")
    assert error.result["elapsed"] == 4711.0


async def test_a_lease_that_is_remembered_and_gone_is_lost(
    lifecycle: Lifecycle, session: Session, lease: Grant, tables: Tables, move_clock: MoveClock
) -> None:
    known = await finish.facts(session, [lease.lease_id])
    lifecycle.recall_from(Memory(*known.values()))
    await move_clock(31)
    await lifecycle.expire([lease.lease_id])

    (answer,) = await lifecycle.fail([failed(lease)])

    assert answer == FailAnswer(Outcome.LOST)
    assert len(await tables.events(lease.job_id, "action_error")) == 1


async def test_a_lease_that_a_failover_lost_with_its_policy_fails_no_other_one(
    lifecycle: Lifecycle, session: Session, lease: Grant
) -> None:
    known = (await finish.facts(session, [lease.lease_id]))[lease.lease_id]
    gone = lease._replace(lease_id=lease.lease_id + 1, job_id=lease.job_id + 1)
    lifecycle.recall_from(
        Memory(known, known._replace(lease_id=gone.lease_id, job_id=gone.job_id, policy_id=999))
    )

    answers = await lifecycle.fail([failed(gone), failed(lease)])

    assert [answer.outcome for answer in answers] == [Outcome.LOST, Outcome.OK]


async def test_events_of_failures_of_one_statement_have_ids_of_their_own(
    lifecycle: Lifecycle, session: Session
) -> None:
    await lifecycle.enqueue([NewJob("q", "task", "{}", policy=to_json(RetryPolicy()), max_attempts=3)] * 6)
    leases, _ = await grant(session, [Lane("q", 0, 0, 6, 0)], [1] * 6, [Taker(1, "worker", 30.0)])

    delays: list[float | None] = [None, 0.0, 5.0] * 2
    await finish.fail(
        session,
        [
            finish.FailedLease(lease.lease_id, delay, "{}", "{}")
            for lease, delay in zip(leases, delays, strict=True)
        ],
    )

    rows = await session.rows("SELECT event_id FROM history UNION ALL SELECT seq FROM ready")
    assert len(rows) == 6 * 4 + 2
    assert len({event_id for (event_id,) in rows}) == len(rows)


async def test_elapsed_counts_from_the_enqueue(
    lifecycle: Lifecycle, session: Session, lease: Grant, move_clock: MoveClock
) -> None:
    await move_clock(90)

    known = await finish.facts(session, [lease.lease_id])

    assert known[lease.lease_id].elapsed_seconds == pytest.approx(90, abs=5)
    assert known[lease.lease_id].expires_at - lease.expires_at == timedelta(0)
