"""A call for an execution whose client goes is carried through from its turn on, and told; before that it is dropped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest

from broker.job import Arrival
from broker.lifecycle import Lifecycle, Signals
from tests.contract.playbooks.catalog import ONE_STEP, PATH
from tests.contract.tables import Tables
from tests.contract.waiting import eventually

# A commit waits for whoever holds the lock 7.
_SLOW_COMMIT = """
CREATE FUNCTION noetl.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON noetl.execution DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION noetl.wait();
"""


@pytest.fixture
def arrived() -> list[Arrival]:
    """Where jobs were said to have become available."""
    return []


@pytest.fixture
async def lifecycle(database_url: str, tables: Tables, arrived: list[Arrival]) -> AsyncIterator[Lifecycle]:
    """The verbs, with a playbook of one step."""
    await tables.rows(_SLOW_COMMIT)
    verbs = Lifecycle(database_url, Signals(arrived=arrived.extend), lambda: 0.5)
    await verbs.executions.register(ONE_STEP)
    yield verbs
    await verbs.close()


@asynccontextmanager
async def commits_held_back(tables: Tables) -> AsyncIterator[None]:
    """Inside the block no start of an execution can commit."""
    async with await psycopg.AsyncConnection.connect(tables.database_url) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(7)")
        yield


async def test_a_start_whose_caller_goes_while_it_commits_is_told(
    lifecycle: Lifecycle, tables: Tables, arrived: list[Arrival]
) -> None:
    async with commits_held_back(tables):
        start = asyncio.create_task(lifecycle.executions.start(PATH, 0, "{}", None))
        await eventually(tables.somebody_waits_for_a_lock)
        await gone(start)

    await lifecycle.close()
    assert await tables.value("SELECT count(*) FROM noetl.ready") == 1
    assert [arrival.queue for arrival in arrived] == ["default"]


async def test_a_start_whose_caller_goes_before_its_turn_does_not_happen(
    lifecycle: Lifecycle, tables: Tables
) -> None:
    async with commits_held_back(tables):
        first = asyncio.create_task(lifecycle.executions.start(PATH, 0, "{}", None))
        await eventually(tables.somebody_waits_for_a_lock)
        second = asyncio.create_task(lifecycle.executions.start(PATH, 0, "{}", None))
        await asyncio.sleep(0)
        await gone(second)

    started = await first
    await lifecycle.close()
    assert await tables.rows("SELECT execution_id FROM noetl.execution") == [(started.execution_id,)]


async def gone(call: asyncio.Task[object]) -> None:
    """Cancels a call as its client does by going."""
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
