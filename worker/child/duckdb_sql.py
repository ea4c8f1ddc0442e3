"""Runs the statements of a duckdb step in this process, which can be killed in the midst of any of them."""

import json
from typing import Any, NoReturn

import duckdb

from worker.child.entry import end_process, give_failure, give_result, take_job
from worker.failure import JobFailed
from worker.sql_rows import MOST_ROWS, json_row

# What a warm parent imports before it forks, beyond what this module does: what failures and rows need.
WARM = ("datetime", "decimal", "pytz", "traceback", "uuid")


def main(lifeline: int, answer: int) -> NoReturn:
    """Takes the job, runs it, answers, ends the process: whatever goes wrong is the answer."""
    given = json.loads(take_job(lifeline, answer))
    try:
        give_result(answer, run(given["database"], given["commands"], given["data"]))
    except BaseException as error:  # whatever ends the step is its failure
        give_failure(answer, error)
    end_process()


def run(database: str, commands: list[str], data: dict[str, Any]) -> dict[str, Any]:
    """`{"command_N": {"status", "rows", "row_count", "columns"}}`, N from 0; parameters ($name) come from
    `data`.

    Raises JobFailed at the first statement that fails, with what came before it as the result.
    """
    results: dict[str, Any] = {}
    with _connected(database) as connection:
        for command in commands:
            try:
                statements = connection.extract_statements(command)
            except duckdb.Error as error:
                raise _failed(error, results) from error
            for statement in statements:
                try:
                    parameters = {name: data[name] for name in statement.named_parameters if name in data}
                    cursor = connection.execute(statement, parameters or None)
                    name = f"command_{len(results)}"
                    results[name] = _result_of(cursor)
                except duckdb.Error as error:
                    raise _failed(error, results) from error
    return results


def _connected(database: str) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(database)
    except duckdb.Error as error:
        raise JobFailed(str(error), type=f"duckdb.{type(error).__name__}", stack_trace="") from error


def _result_of(cursor: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    columns = [column[0] for column in cursor.description or ()]
    rows: list[dict[str, Any]] = []
    count = 0
    while chunk := cursor.fetchmany(MOST_ROWS):
        rows += [json_row(columns, row) for row in chunk[: MOST_ROWS - len(rows)]]
        count += len(chunk)
    return {"status": "success", "rows": rows, "row_count": count, "columns": columns}


def _failed(error: duckdb.Error, results: dict[str, Any]) -> JobFailed:
    name = f"command_{len(results)}"
    results[name] = {"status": "error", "message": str(error)}
    return JobFailed(
        f"{name}: {error}", type=f"duckdb.{type(error).__name__}", result=results, stack_trace=""
    )
