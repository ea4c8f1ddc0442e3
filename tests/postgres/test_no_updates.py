"""Hot rows are only ever inserted and deleted, a lease's expiry aside: so the lanes stay fast behind an old snapshot."""

import grpc
import psycopg

from broker.config import BrokerConfig
from broker.server import running
from tests.contract.client import AT_ONCE, Client, new_job
from tests.contract.playbooks.catalog import RETRIED, PlaybookClient
from tests.contract.playbooks.run import Starter
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

COUNTS = """
SELECT regexp_replace(relname, '_[0-9]{8}$|_executions$', '') AS relation, sum(n_tup_ins)::int, sum(n_tup_upd)::int, sum(n_tup_del)::int
FROM pg_stat_user_tables WHERE schemaname = 'noetl' GROUP BY 1
"""


async def use_every_verb(client: Client, tables: Tables, move_clock: MoveClock) -> None:
    """Enqueue of every sort, Lease, Extend, Complete, Fail, Release, expiry, give-back, retry, and most of them repeated."""
    await client.enqueue_all(
        *(new_job(retry=AT_ONCE, idempotency_key=f"k{number}", priority=number) for number in range(6)),
        new_job(delay=5),
    )
    await client.enqueue_all(new_job(retry=AT_ONCE, idempotency_key="k0", priority=0))
    async with client.stream(1) as stream:
        await stream.leases(1)
    await eventually(lambda: _count(tables, "noetl.lease", 0))
    tokens = [lease.lease_token for lease in await client.poll(6, lease_seconds=30)]
    for _ in range(2):
        await client.extend(tokens[0], checkpoint_json="1")
        await client.complete(tokens[0])
        await client.fail(tokens[1])
        await client.release(tokens[2])
    await client.enqueue(retry=AT_ONCE, attempt_timeout=10)
    await move_clock(31)
    await eventually(lambda: _count(tables, "noetl.lease", 0))
    for lease in await client.poll(100):
        await client.complete(lease.lease_token)


async def test_no_verb_updates_a_hot_row(database_url: str, move_clock: MoveClock) -> None:
    tables = Tables(database_url)
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await use_every_verb(Client(channel), tables, move_clock)
    # A session tells what it has done at the latest when it ends.
    await eventually(lambda: _no_broker(tables))

    counts = {row[0]: row[1:] for row in await tables.rows(COUNTS)}

    assert {name: counts[name][1] for name in ("ready", "delayed", "job", "event_log")} == {
        "ready": 0, "delayed": 0, "job": 0, "event_log": 0,
    }  # fmt: skip
    assert counts["lease"][1] == 1, "one heartbeat"
    assert counts["job"] == (8, 0, 0)
    assert counts["event_log"][2] == 0, "history is never deleted row by row"
    assert counts["delayed"][0] == counts["delayed"][2] == 1
    assert counts["ready"][0] == counts["ready"][2] > 8
    assert counts["lease"][0] == counts["lease"][2] > 8


async def test_no_verb_of_an_execution_updates_a_hot_row(database_url: str, move_clock: MoveClock) -> None:
    tables = Tables(database_url)
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        start = Starter(PlaybookClient(channel), Client(channel), tables)
        run = await start(RETRIED)
        await run.fail("task")
        await move_clock(60)
        await run.client.release((await run.lease("task")).lease_token)
        async with run.client.stream(1) as breaking:
            await breaking.leases(1)
        await eventually(lambda: _count(tables, "noetl.lease", 0))
        await run.complete("task")
        expired = await start.again()
        await expired.lease("task", lease_seconds=30)
        await move_clock(31)
        await eventually(lambda: _count(tables, "noetl.lease", 0))
        await expired.playbooks.cancel(expired.execution_id, "enough")
        cancelled = await start.again()
        await cancelled.playbooks.cancel(cancelled.execution_id, "before it ran")
        assert [await one.status() for one in (run, expired, cancelled)] == [
            "COMPLETED",
            "CANCELLED",
            "CANCELLED",
        ]
    await eventually(lambda: _no_broker(tables))

    counts = {row[0]: row[1:] for row in await tables.rows(COUNTS)}

    assert {name: counts[name][1] for name in ("ready", "delayed", "lease", "job", "event_log")} == {
        "ready": 0, "delayed": 0, "lease": 0, "job": 0, "event_log": 0,
    }  # fmt: skip
    assert counts["delayed"][0] == 2, "a retry after a failure and one after an expiry"


async def _count(tables: Tables, table: str, count: int) -> bool:
    return bool(await tables.value(f"SELECT count(*) FROM {table}") == count)


async def _no_broker(tables: Tables) -> bool:
    async with await psycopg.AsyncConnection.connect(tables.database_url, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return await cursor.fetchone() == (0,)
