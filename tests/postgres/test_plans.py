"""Each hot statement keeps its index plan, whatever PostgreSQL believes about the size of the tables."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from broker.job import NewJob, Taker
from broker.store import executions, finish, sweep
from broker.store.enqueue import Enqueuer
from broker.store.events import EventKind
from broker.store.executions import StepEvent
from broker.store.grant import Lane, discover, grant
from broker.store.promote import Offer, QueueOffer, promote
from broker.store.session import Row, Session

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
OF_JOBS = {"ready", "delayed", "lease", "job", "event_log", "idempotency", "checkpoint", "cancellation"}
OF_EXECUTIONS = {"playbook", "execution", "execution_step"}

# Rows per page that the planner is told of, for pages that are there: of an empty table, of a small one, of a huge one.
DENSITIES = (0, 5, 50_000_000)
SAMPLES = {
    "text": "q",
    "int2": "1",
    "int4": "1",
    "int8": "1",
    "float8": "1",
    "timestamptz": "2026-01-01",
    "boolean": "f",
    "jsonb": "{}",
}


class Explaining(Session):
    """A session that keeps every statement it runs, to have its generic plan explained afterwards."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.statements: list[str] = []

    async def rows(self, statement: str, arguments: Sequence[object] = ()) -> list[Row]:
        self.statements.append(statement)
        return await super().rows(statement, arguments)

    async def plan(self, statement: str) -> dict[str, Any]:
        """The plan under the settings of every session of the broker."""
        types = re.findall(r"([-+] )?%b::(\w+)(\[\])?", statement)
        assert len(types) == statement.count("%b"), "each argument says its type"
        numbers = iter(range(1, len(types) + 1))
        numbered = re.sub("%b", lambda _: f"${next(numbers)}", statement).replace("%%", "%")
        connection = await self._connected()
        now = await (await connection.execute("SELECT noetl.next_id()")).fetchone()
        assert now is not None
        # An id of today, and no distance from one: where a statement bounds ids, it reads today's partition and leaves out the others.
        given = {**SAMPLES, "int8": now[0]}
        values = [(0 if distance else given[name], name, array) for distance, name, array in types]
        samples = ", ".join(
            f"'{{{value}}}'::{name}[]" if array else f"'{value}'::{name}" for value, name, array in values
        )
        await connection.execute(f"PREPARE explained AS {numbered}".encode())
        cursor = await connection.execute(
            f"EXPLAIN (FORMAT JSON) EXECUTE explained{f'({samples})' if types else ''}".encode()
        )
        row = await cursor.fetchone()
        await connection.execute("DEALLOCATE explained")
        assert row is not None
        found = json.loads(row[0]) if isinstance(row[0], str) else row[0]
        plan: dict[str, Any] = found[0]["Plan"]
        return plan


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[Explaining]:
    opened = Explaining(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def administrator(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def _enqueue(session: Session) -> None:
    await Enqueuer(session).put([NewJob("q", "task", "{}")], [0])


async def _enqueue_scheduled(session: Session) -> None:
    await Enqueuer(session).put([NewJob("q", "task", "{}", delay_seconds=60.0)], [0])


async def _enqueue_new_keys(session: Session) -> None:
    await Enqueuer(session).put([NewJob("q", "task", "{}", idempotency_key="k")], [0])


async def _enqueue_used_keys(session: Session) -> None:
    for _ in range(2):
        await Enqueuer(session).put([NewJob("q", "task", "{}", idempotency_key="k")], [0])


async def _enqueue_taken(session: Session) -> None:
    await Enqueuer(session).put([NewJob("q", "task", "{}")], [0], [1], [Taker(1, "worker", 30.0)])


async def _enqueue_partly_taken(session: Session) -> None:
    await Enqueuer(session).put(
        [NewJob("q", "task", "{}")] * 2, [0, 0], [1, None], [Taker(1, "worker", 30.0)]
    )


async def _enqueue_used_keys_taken(session: Session) -> None:
    job = NewJob("q", "task", "{}", idempotency_key="k")
    for _ in range(2):
        await Enqueuer(session).put([job], [0], [1], [Taker(1, "worker", 30.0)])


async def _enqueue_new_keys_taken(session: Session) -> None:
    job = NewJob("q", "task", "{}", idempotency_key="k")
    await Enqueuer(session).put([job], [0], [1], [Taker(1, "worker", 30.0)])


async def _enqueue_used_keys_partly_taken(session: Session) -> None:
    jobs = [NewJob("q", "task", "{}", idempotency_key=key) for key in ("k", "l")]
    for _ in range(2):
        await Enqueuer(session).put(jobs, [0, 0], [1, None], [Taker(1, "worker", 30.0)])


async def _enqueue_other_columns_taken(session: Session) -> None:
    job = NewJob("q", "task", "{}", attempt_timeout_seconds=60.0, labels="{}", execution_id=1, step="s")
    await Enqueuer(session).put([job], [0], [1], [Taker(1, "worker", 30.0)])


async def _grant(session: Session) -> None:
    await grant(session, [Lane("q", 0, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])


async def _grant_from_several(session: Session) -> None:
    await grant(session, [Lane("q", 0, 0, 1, 0), Lane("q", 5, 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])


async def _discover(session: Session) -> None:
    await discover(session, [("q", -101, 101)], [("q", 0, 0)])


async def _complete(session: Session) -> None:
    await finish.complete(session, [finish.Completion(1, "null")])


async def _facts(session: Session) -> None:
    await finish.facts(session, [1])


async def _fail(session: Session) -> None:
    await finish.fail(session, [finish.FailedLease(1, 1.0, "{}", "{}")])


async def _expire(session: Session) -> None:
    await finish.fail(session, [finish.FailedLease(1, None, "{}", "{}")], only_expired=True)


async def _release(session: Session) -> None:
    await finish.release(session, [1], "released by its worker")


async def _extend(session: Session) -> None:
    await finish.extend(session, [1], [None], None)


async def _spent(session: Session) -> None:
    await finish.spent(session, [(1, 1)])


async def _promote(session: Session) -> None:
    await promote(session, BEGINNING, 1000, Offer())


async def _promote_and_take(session: Session) -> None:
    await promote(
        session, BEGINNING, 1000, Offer([QueueOffer("q", 0, 1, 0)], [1], [Taker(1, "worker", 30.0)])
    )


async def _expired(session: Session) -> None:
    await sweep.expired(session, sweep.Place(BEGINNING), 1000)


async def _playbook(session: Session) -> None:
    await executions.playbook(session, "p", 0)


async def _start(session: Session) -> None:
    await executions.start(session, "p", 1, "{}", "{}", "k")


async def _start_again(session: Session) -> None:
    for _ in range(2):
        await executions.start(session, "p", 1, "{}", "{}", "k")


async def _executions_of(session: Session) -> None:
    await executions.executions_of(session, [1])


async def _lock(session: Session) -> None:
    await executions.lock(session, [1])


async def _started_steps(session: Session) -> None:
    await executions.started_steps(session, [1])


async def _step_ends(session: Session) -> None:
    await executions.step_ends(session, [1])


async def _details(session: Session) -> None:
    await executions.details(session, 1, [1])


async def _record(session: Session) -> None:
    await executions.record(session, [StepEvent(1, EventKind.STEP_STARTED, "s")])


async def _start_steps(session: Session) -> None:
    await executions.start_steps(session, [(1, "s", 1)])


async def _add_dead_job(session: Session) -> None:
    await executions.add_dead_job(session, NewJob("q", "task", "{}", execution_id=1, step="s"))


async def _end(session: Session) -> None:
    await executions.end(session, 1, "completed", result="null")


LEASED_FINDS_BY = {"job: pkey", "event_log: job_id_event_id", "checkpoint: checkpoint_pkey"}
GRANT_FINDS_BY = {"ready: ready_order", "ready: by place"} | LEASED_FINDS_BY
PROMOTE_FINDS_BY = {"delayed: delayed_pkey", "delayed: by place"}
# How each statement finds the rows of each table that it does not merely write. The n-th partition's indexes go by their columns.
FOUND_BY = {
    _enqueue: set[str](),
    _enqueue_scheduled: set[str](),
    _enqueue_new_keys: set[str](),
    _enqueue_used_keys: {"idempotency: idempotency_pkey", "job: pkey"},
    _enqueue_taken: set[str](),
    _enqueue_partly_taken: set[str](),
    _enqueue_used_keys_taken: {"idempotency: idempotency_pkey", "job: pkey"},
    _enqueue_new_keys_taken: set[str](),
    _enqueue_used_keys_partly_taken: {"idempotency: idempotency_pkey", "job: pkey"},
    _enqueue_other_columns_taken: set[str](),
    _grant: GRANT_FINDS_BY,
    _grant_from_several: GRANT_FINDS_BY,
    _discover: {"ready: ready_order"},
    _complete: {"lease: lease_pkey"},
    _facts: {"lease: lease_pkey", "job: pkey", "cancellation: cancellation_pkey"},
    _fail: {"lease: lease_pkey"},
    _expire: {"lease: lease_pkey"},
    _release: {"lease: lease_pkey", "job: pkey"},
    _extend: {"lease: lease_pkey", "cancellation: cancellation_pkey"},
    _promote: PROMOTE_FINDS_BY,
    _promote_and_take: PROMOTE_FINDS_BY | LEASED_FINDS_BY,
    _expired: {"lease: lease_expiry"},
    _spent: {"event_log: job_id"},
    _playbook: {"playbook: playbook_pkey"},
    _start: set[str](),
    _start_again: {"execution: execution_key"},
    _executions_of: {"job: pkey"},
    _lock: {"execution: execution_pkey"},
    _started_steps: {"execution_step: execution_step_pkey"},
    _step_ends: {"event_log: execution_id_event_id"},
    _details: {"event_log: execution_id_event_id"},
    _record: set[str](),
    _start_steps: set[str](),
    _add_dead_job: set[str](),
    _end: {"execution: execution_running"},
}  # fmt: skip


async def pretend(administrator: psycopg.AsyncConnection, density: int) -> None:
    """Tells the planner that each page of each table holds so many rows."""
    await administrator.execute(
        """UPDATE pg_class SET reltuples = %s, relpages = 1, relallvisible = 0
        WHERE relnamespace = 'noetl'::regnamespace AND relkind IN ('r', 'i')""",
        (density,),
    )


def scans(plan: dict[str, Any]) -> set[str]:
    """How the plan finds rows, as "table: index"; partitions by the name of their table."""
    found = set()
    relation = _without_day(plan.get("Relation Name", ""))
    node = plan["Node Type"]
    if node == "Tid Scan":
        found.add(f"{relation}: by place")
    elif node in ("Index Scan", "Index Only Scan"):
        found.add(f"{relation}: {_index(plan['Index Name'], relation)}")
    elif node == "Bitmap Heap Scan":
        found |= {f"{relation}: {_index(name, relation)}" for name in _bitmaps(plan)}
    elif node == "Seq Scan" and relation in OF_JOBS | OF_EXECUTIONS:
        found.add(f"{relation}: read from end to end")
    return found.union(*map(scans, plan.get("Plans", ())))


def tables(plan: dict[str, Any]) -> set[str]:
    """The tables that the plan reads or writes, partitions by their own names."""
    return {plan.get("Relation Name", "")}.union(*map(tables, plan.get("Plans", ())))


def _bitmaps(plan: dict[str, Any]) -> set[str]:
    names = {plan["Index Name"]} if plan["Node Type"] == "Bitmap Index Scan" else set()
    return names.union(*map(_bitmaps, plan.get("Plans", ())))


def _without_day(name: str) -> str:
    return re.sub(r"_\d{8}$|_executions$", "", name)


def _index(name: str, relation: str) -> str:
    partition = re.fullmatch(rf"{relation}_(?:\d{{8}}|executions)_(.+?)(?:_idx\d*)?", name)
    return partition[1] if partition else name


@pytest.mark.parametrize("run", FOUND_BY, ids=lambda run: run.__name__.removeprefix("_"))
async def test_a_hot_statement_finds_its_rows_by_the_same_indexes_however_many_there_seem_to_be(
    session: Explaining, administrator: psycopg.AsyncConnection, run: Any
) -> None:
    for _ in range(3):
        await Enqueuer(session).put(
            [NewJob("q", "task", "{}"), NewJob("q", "task", "{}", delay_seconds=60.0)], [0, 0]
        )
    await grant(session, [Lane("q", 0, 0, 2, 0)], [1, 1], [Taker(1, "worker", 30.0)])
    await executions.register(session, "p", "p", "")
    await executions.start(session, "p", 1, "{}", "{}", "other")
    await executions.record(session, [StepEvent(1, EventKind.STEP_STARTED, "other")])
    await executions.start_steps(session, [(1, "other", 0)])
    session.statements.clear()
    await run(session)
    statement = session.statements[-1]

    by_density = {}
    for density in DENSITIES:
        await pretend(administrator, density)
        by_density[density] = scans(await session.plan(statement))

    assert by_density == dict.fromkeys(DENSITIES, FOUND_BY[run])


@pytest.mark.parametrize("run", [_grant, _promote_and_take], ids=lambda run: run.__name__.removeprefix("_"))
async def test_a_lease_statement_does_not_even_open_the_days_before_its_reach(
    session: Explaining, run: Any
) -> None:
    await Enqueuer(session).put([NewJob("q", "task", "{}")], [0])
    (days,) = await session.rows(
        """SELECT to_char(noetl.clock(), 'YYYYMMDD'), to_char(noetl.clock() - interval '1 day', 'YYYYMMDD')"""
    )
    today, yesterday = days
    session.statements.clear()
    await run(session)

    opened = tables(await session.plan(session.statements[-1]))

    assert {f"job_{today}", f"event_log_{today}"} <= opened
    assert opened.isdisjoint({f"job_{yesterday}", f"event_log_{yesterday}"})


async def test_the_executions_of_jobs_are_looked_for_only_in_the_days_of_those_jobs(
    session: Explaining,
) -> None:
    ((today,),) = await session.rows("SELECT to_char(noetl.clock(), 'YYYYMMDD')")
    session.statements.clear()
    await executions.executions_of(session, [1])

    opened = tables(await session.plan(session.statements[-1]))

    assert {table for table in opened if table.startswith("job_")} == {f"job_{today}"}
