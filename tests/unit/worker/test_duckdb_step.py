"""The duckdb step: results, failures, and that it can be killed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from worker.executors.duckdb_step import DuckdbStep
from worker.failure import JobFailed
from worker.job import Job


@pytest.fixture(scope="module")
async def step() -> AsyncIterator[DuckdbStep]:
    async with DuckdbStep({}) as step:
        yield step


async def run(step: DuckdbStep, **given: Any) -> Any:
    return await step.execute(Job(1, "default", "duckdb", 1, 1, given))


async def test_every_statement_has_its_result(step: DuckdbStep) -> None:
    result = await run(
        step,
        commands=[
            "create table t as select range a from range(3)",
            "select sum(a) s from t; select $n::int + 1 n",
        ],
        data={"n": 4, "unused": 1},
    )
    assert [result[name]["rows"] for name in ("command_1", "command_2")] == [[{"s": 3}], [{"n": 5}]]
    assert result["command_1"] == {"status": "success", "rows": [{"s": 3}], "row_count": 1, "columns": ["s"]}


async def test_values_that_json_lacks_become_text(step: DuckdbStep) -> None:
    result = await run(
        step,
        query="select 'NaN'::double d, '\\x0a'::blob b, 1.50::decimal(9,2) m, date '2026-01-02' t, [1] l",
    )
    assert result["command_0"]["rows"] == [{"d": "nan", "b": "\\x0a", "m": 1.5, "t": "2026-01-02", "l": [1]}]


async def test_rows_are_counted_and_the_first_are_kept(step: DuckdbStep) -> None:
    result = (await run(step, query="select * from range(2500)"))["command_0"]
    assert (result["row_count"], len(result["rows"])) == (2500, 1000)


async def test_failure_has_duckdbs_class_and_what_came_before(step: DuckdbStep) -> None:
    with pytest.raises(JobFailed) as caught:
        await run(step, commands="select 1 a; select * from nowhere")
    failure = caught.value
    assert failure.type == "duckdb.CatalogException"
    assert str(failure).startswith("command_1: ")
    assert failure.result["command_0"]["rows"] == [{"a": 1}]


async def test_database_file_keeps_what_was_written(step: DuckdbStep, tmp_path: Path) -> None:
    database = str(tmp_path / "kept.db")
    await run(step, command="create table t as select 7 a", database=database)
    assert (await run(step, query="select a from t", database=database))["command_0"]["rows"] == [{"a": 7}]


async def test_auth_is_refused_rather_than_ignored(step: DuckdbStep) -> None:
    with pytest.raises(JobFailed) as caught:
        await run(step, query="select 1", auth="warehouse")
    assert caught.value.type == "input_invalid"


async def test_endless_query_can_be_stopped(step: DuckdbStep) -> None:
    endless = "select count(*) from range(10_000_000_000) a, range(10_000_000_000) b where a.range * b.range % 7 = 3"
    running = asyncio.create_task(run(step, query=endless))
    await asyncio.wait({running}, timeout=0.5)
    running.cancel()
    await asyncio.wait({running}, timeout=5)
    assert isinstance(running.exception(), JobFailed)


async def test_step_that_was_not_entered_runs_in_a_fresh_interpreter() -> None:
    assert (await run(DuckdbStep({}), query="select 7 a"))["command_0"]["rows"] == [{"a": 7}]
