"""While the database is away calls are told to come again; when it is back the broker goes on, streams and timers included."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg import sql

from broker.config import BrokerConfig
from broker.embedded import PostgresServer
from broker.server import running
from tests.contract.client import OK, Client, Refusal, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock

Answer = TypeVar("Answer")

_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
)


@pytest.fixture
def client(channel: grpc.aio.Channel) -> Client:
    return Client(channel)


class Database:
    """This test's database, to be taken away."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name

    async def break_all_sessions(self) -> None:
        """As when the server was restarted."""
        async with await self._administrator() as connection:
            await connection.execute(_TERMINATE, (self._name,))

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Inside the block nobody is connected, and nobody can connect."""
        allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        name = sql.Identifier(self._name)
        async with await self._administrator() as connection:
            await connection.execute(allow.format(name, sql.SQL("false")))
            await connection.execute(_TERMINATE, (self._name,))
            try:
                yield
            finally:
                await connection.execute(allow.format(name, sql.SQL("true")))

    @asynccontextmanager
    async def a_standby(self) -> AsyncIterator[None]:
        """Inside the block sessions, new ones all, can only read: as when the server that was reached is not the primary any more."""
        setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        name = sql.Identifier(self._name)
        async with await self._administrator() as connection:
            await connection.execute(setting.format(name, sql.SQL("on")))
            await connection.execute(_TERMINATE, (self._name,))
            try:
                yield
            finally:
                await connection.execute(setting.format(name, sql.SQL("off")))

    def _administrator(self) -> Awaitable[psycopg.AsyncConnection]:
        return psycopg.AsyncConnection.connect(self._server.database_url("postgres"), autocommit=True)


@pytest.fixture
def database(postgres_server: PostgresServer, database_url: str) -> Database:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    assert isinstance(name, str)
    return Database(postgres_server, name)


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        await call
    return Refusal(error.value)


async def insist(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer to a call that is repeated as its errors ask; only those that ask for it may come."""
    while True:
        try:
            return await call()
        except grpc.RpcError as error:
            refusal = Refusal(error)
            assert (refusal.code, refusal.domain) == ("UNAVAILABLE", "reprise")
            assert refusal.retry_after is not None


async def test_every_call_is_told_to_come_again_while_the_database_is_away(
    client: Client, database: Database
) -> None:
    await client.enqueue()
    token = (await client.lease()).lease_token

    async with database.away():
        refusals = [
            await refused(call)
            for call in (
                client.enqueue(),
                client.poll(),
                client.extend(token),
                client.complete(token),
                client.fail(token),
                client.release(token),
            )
        ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain, refusal.reason) == ("UNAVAILABLE", "reprise", "UNAVAILABLE")
        assert refusal.retry_after is not None
    assert await insist(lambda: client.complete(token)) == OK


async def test_a_broker_goes_on_after_every_session_was_broken(
    client: Client, tables: Tables, database: Database, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=9, initial_delay=5), idempotency_key="k")

    for attempt in (1, 2, 3):
        await database.break_all_sessions()
        assert await insist(lambda: client.enqueue(retry=retry(), idempotency_key="k")) == job_id
        lease = (await insist(lambda: client.poll(wait=10)))[0]
        assert lease.attempt == attempt
        await database.break_all_sessions()
        failed = await insist(lambda lease=lease: client.fail(lease.lease_token))  # type: ignore[misc]
        await database.break_all_sessions()
        await move_clock(failed.decision.delay.ToTimedelta().total_seconds())

    assert await tables.standing(job_id) in ("retry 3/9", "queued 3/9")


async def test_a_stream_outlives_an_outage_and_is_served_after_it(client: Client, database: Database) -> None:
    async with client.stream(2) as stream:
        await client.enqueue()
        await stream.leases(1)

        async with database.away():
            await refused(client.enqueue())
        job_id = await insist(client.enqueue)

        assert [lease.job_id for lease in await stream.leases(1)] == [job_id]


async def test_timers_outlive_an_outage(
    client: Client, tables: Tables, database: Database, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=2, initial_delay=5))
    await client.lease(lease_seconds=20)
    async with database.away():
        await refused(client.enqueue())

    await move_clock(20)
    await eventually(lambda: _stands(tables, job_id, "retry 1/2"))
    await move_clock(5)

    leases = await insist(lambda: client.poll(wait=10))
    assert [lease.attempt for lease in leases] == [2]


async def test_deliveries_whose_stream_broke_while_the_database_was_away_go_back_after_it(
    client: Client, tables: Tables, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    job_id = await client.enqueue()

    async with client.stream(1, lease_seconds=3600) as stream:
        await stream.leases(1)
        async with database.away():
            stream.cancel()
            await eventually(lambda: _is_logged(caplog, "undelivered leases"))

    await eventually(lambda: _stands(tables, job_id, "queued 0/1"))


async def test_a_broker_that_stops_gives_back_what_was_not_received_though_its_connection_was_long_dead(
    database_url: str, tables: Tables, database: Database
) -> None:
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        client = Client(channel)
        await client.enqueue(queue="other")
        await client.release((await client.lease(queues=["other"])).lease_token)
        job_id = await client.enqueue()
        stream = client.open_stream()
        await stream.ask(1, queues=["default"], worker_id="worker-1")
        await stream.leases(1)
        await database.break_all_sessions()

    assert await tables.standing(job_id) == "queued 0/1"


async def test_calls_in_flight_when_sessions_break_are_answered_one_way_or_the_other(
    client: Client, tables: Tables, database: Database
) -> None:
    async def put(number: int) -> int:
        return await insist(lambda: client.enqueue(idempotency_key=str(number)))

    putting = [asyncio.ensure_future(put(number)) for number in range(200)]
    for _ in range(5):
        await database.break_all_sessions()
    job_ids = await asyncio.gather(*putting)

    assert len(set(job_ids)) == 200
    assert await tables.value("SELECT count(*) FROM noetl.job") == 200


async def test_a_broker_that_has_reached_a_standby_goes_on_once_there_is_a_primary(
    client: Client, database: Database
) -> None:
    job_id = await client.enqueue(idempotency_key="k")

    async with database.a_standby():
        refusals = [await refused(client.enqueue()) for _ in range(3)]

    assert {refusal.reason for refusal in refusals} == {"UNAVAILABLE"}
    assert await insist(lambda: client.enqueue(idempotency_key="k")) == job_id


async def test_health_says_that_the_database_is_away_and_back(
    channel: grpc.aio.Channel, client: Client, database: Database
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    whole = stub.Watch(health_pb2.HealthCheckRequest())
    assert await _changes_to(whole, "SERVING")

    async with database.away():
        assert await _changes_to(whole, "NOT_SERVING")
        process = await stub.Check(health_pb2.HealthCheckRequest(service="grpc.health.v1.Health"))
        assert process.status == health_pb2.HealthCheckResponse.SERVING

    assert await _changes_to(whole, "SERVING")
    assert await client.enqueue()


async def _changes_to(watch: Any, status: str) -> bool:
    """True once the watch says so; what it says in between is passed over."""
    while health_pb2.HealthCheckResponse.ServingStatus.Name((await watch.read()).status) != status:
        pass
    return True


async def _is_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def _stands(tables: Tables, job_id: int, standing: str) -> bool:
    return await tables.standing(job_id) == standing
