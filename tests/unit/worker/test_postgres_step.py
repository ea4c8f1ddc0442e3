"""The postgres step against a real server."""

import asyncio
from typing import Any

import psycopg
import pytest

from worker.credentials import Credentials
from worker.executors.postgres_step import PostgresStep
from worker.failure import JobFailed
from worker.job import Job


@pytest.fixture
def step(empty_database_url: str) -> PostgresStep:
    parts: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(empty_database_url))
    return PostgresStep(
        Credentials(
            {
                "dsn": {"type": "postgres", "dsn": empty_database_url},
                "parts": {"type": "postgres", **{f"db_{key}": value for key, value in parts.items()}},
                "nobody": {**parts, "host": "127.0.0.1", "port": 1, "password": "hunter22"},
                "database_missing": {**parts, "dbname": "nowhere"},
            }
        )
    )


async def run(step: PostgresStep, auth: Any = "dsn", **given: Any) -> Any:
    return await step.execute(Job(1, "default", "postgres", 1, 1, {"auth": auth, **given}))


async def failure_of(step: PostgresStep, auth: Any = "dsn", **given: Any) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await run(step, auth, **given)
    return caught.value


@pytest.mark.parametrize("auth", ["dsn", {"type": "postgres", "credential": "dsn"}, "parts"])
async def test_query_returns_rows_by_column(step: PostgresStep, auth: Any) -> None:
    result = await run(step, auth, query="select 1 as a, 'x' as b")
    assert result == {
        "command_0": {
            "status": "success",
            "rows": [{"a": 1, "b": "x"}],
            "row_count": 1,
            "columns": ["a", "b"],
        }
    }


async def test_every_statement_has_its_result(step: PostgresStep) -> None:
    result = await run(
        step,
        commands=[
            "create table t (a int); insert into t values (1), (2)",
            "update t set a = 3; select a from t where false",
        ],
    )
    assert [one.get("message") for one in result.values()] == ["CREATE TABLE", "INSERT 0 2", "UPDATE 2", None]
    assert [one["row_count"] for one in result.values()] == [0, 2, 2, 0]
    assert result["command_3"]["rows"] == []


async def test_statements_are_transactions_of_their_own(step: PostgresStep) -> None:
    failure = await failure_of(
        step, command="create table t (a int primary key); insert into t values (1); select 1 / 0"
    )
    assert failure.type == "postgres.22012"
    assert str(failure).startswith("command_2: division by zero")
    assert failure.result["command_1"]["row_count"] == 1
    assert failure.result["command_2"]["status"] == "error"
    assert (await run(step, query="select a from t"))["command_0"]["rows"] == [{"a": 1}]


async def test_placeholders_are_bound_not_pasted(step: PostgresStep) -> None:
    result = await run(
        step,
        command="select %(name)s::text as name, %(tags)s::jsonb as tags; select 'ab' like 'a%' as likes",
        data={"name": "'; drop table t; --", "tags": {"a": [1]}},
    )
    assert result["command_0"]["rows"] == [{"name": "'; drop table t; --", "tags": {"a": [1]}}]
    assert result["command_1"]["rows"] == [{"likes": True}]


async def test_values_that_json_lacks_become_text(step: PostgresStep) -> None:
    result = await run(
        step,
        query="""select 'NaN'::float8 f, 'NaN'::numeric n, 12.50::numeric m, '\\x0a'::bytea b, array[1, null] a,
            interval '90 s' i, '10.0.0.1'::inet ip, '[1,3)'::int4range r, date '2026-01-02' d, null x,
            '00000000-0000-0000-0000-000000000001'::uuid u""",
    )
    assert result["command_0"]["rows"] == [
        {
            "f": "nan",
            "n": "NaN",
            "m": 12.5,
            "b": "\\x0a",
            "a": [1, None],
            "i": 90.0,
            "ip": "10.0.0.1",
            "r": "[1, 3)",
            "d": "2026-01-02",
            "x": None,
            "u": "00000000-0000-0000-0000-000000000001",
        }
    ]


async def test_rows_are_counted_and_the_first_are_kept(step: PostgresStep) -> None:
    result = (await run(step, query="select generate_series(1, 2500) as n"))["command_0"]
    assert (result["row_count"], len(result["rows"]), result["rows"][-1]) == (2500, 1000, {"n": 1000})


async def test_statement_runs_to_its_end_also_where_rows_are_dropped(step: PostgresStep) -> None:
    await run(step, command="create table t (a int)")
    await run(step, command="insert into t select generate_series(1, 2500) returning a")
    assert (await run(step, query="select count(*) n from t"))["command_0"]["rows"] == [{"n": 2500}]


@pytest.mark.parametrize(
    ("auth", "failure_type"),
    [
        ("nobody", "postgres.connect"),
        ("nope", "credential_not_found"),
        (None, "credential_not_found"),
        ({"dsn": "postgresql://x"}, "input_invalid"),
    ],
)
async def test_connection_that_cannot_be_made_fails_the_attempt(
    step: PostgresStep, auth: Any, failure_type: str
) -> None:
    failure = await failure_of(step, auth, query="select 1")
    assert failure.type == failure_type
    assert "hunter22" not in str(failure)


async def test_stopped_step_stops_its_query_in_the_server(
    step: PostgresStep, empty_database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute("select pg_advisory_lock(1)")
        running = asyncio.create_task(run(step, query="select pg_advisory_lock(1)"))
        while await _waiting_for_a_lock(connection) == 0:
            assert not running.done()
        running.cancel()
        await asyncio.wait({running}, timeout=5)
        assert running.cancelled()
        assert await _waiting_for_a_lock(connection) == 0


async def _waiting_for_a_lock(connection: psycopg.AsyncConnection[Any]) -> int:
    row = await (await connection.execute("select count(*) from pg_locks where not granted")).fetchone()
    assert row
    return int(row[0])
