"""Step type `postgres`: SQL on a database that the worker has a credential for."""

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from worker.credentials import Credential, Credentials
from worker.executors.sql_input import commands_of, only_reads, statements_of
from worker.failure import CREDENTIAL_NOT_FOUND, JobFailed
from worker.job import Job
from worker.sql_rows import MOST_ROWS, json_row

CONNECT_SECONDS = 10
_CONNECTION_FIELDS = ("host", "port", "user", "password", "dbname", "sslmode", "connect_timeout")


class PostgresStep:
    """Input: `command`, `commands` or `query`; `auth`, the credential's name; `data` for %(name)s
    placeholders.

    Each statement is a transaction of its own: what came before one that fails stays.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def execute(self, job: Job) -> Any:
        """`{"command_N": …}`, N from 0: of a query `rows`, `row_count`, `columns`, else `row_count` and
        `message`.

        Raises JobFailed "postgres.<SQLSTATE>" at the first statement that fails, with the results so far;
        "postgres.connect".
        """
        statements = [statement for text in commands_of(job.input) for statement in statements_of(text)]
        auth = job.input.get("auth")
        if auth is None:
            raise JobFailed("a postgres step needs auth: NAME of a credential", type=CREDENTIAL_NOT_FOUND)
        data = job.input.get("data")
        parameters = _parameters_of(data if isinstance(data, dict) else {})
        results: dict[str, Any] = {}
        async with await _connected(self._credentials.find(auth)) as connection:
            for number, statement in enumerate(statements):
                name = f"command_{number}"
                try:
                    results[name] = await _result_of(connection, statement, parameters)
                except psycopg.Error as error:
                    results[name] = {"status": "error", "message": str(error)}
                    raise JobFailed(
                        f"{name}: {error}", type=_type_of(error), result=results, stack_trace=""
                    ) from error
        return results


async def _connected(credential: Credential) -> psycopg.AsyncConnection[Any]:
    known = {name: credential.fields[name] for name in _CONNECTION_FIELDS if name in credential.fields}
    if "username" in credential.fields:
        known.setdefault("user", credential.fields["username"])
    try:
        return await psycopg.AsyncConnection.connect(
            str(credential.fields.get("dsn", "")),
            autocommit=True,
            **{"connect_timeout": CONNECT_SECONDS, "application_name": "reprise", **known},
        )
    except psycopg.Error as error:
        failure_type = f"postgres.{error.sqlstate}" if error.sqlstate else "postgres.connect"
        raise JobFailed(
            f"credential {credential.name!r}: {error}", type=failure_type, stack_trace=""
        ) from error


async def _result_of(
    connection: psycopg.AsyncConnection[Any], statement: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    # Without parameters a % is a %.
    bound = parameters if "%(" in statement else None
    async with connection.cursor() as cursor:
        if only_reads(statement):
            return await _first_rows(cursor, statement, bound)
        await cursor.execute(statement, bound)
        if cursor.description is None:
            return _outcome_of(cursor.statusmessage or "")
        columns = [column.name for column in cursor.description]
        rows = [json_row(columns, row) for row in await cursor.fetchmany(MOST_ROWS)]
        return {"status": "success", "rows": rows, "row_count": cursor.rowcount, "columns": columns}


async def _first_rows(
    cursor: psycopg.AsyncCursor[Any], query: str, bound: dict[str, Any] | None
) -> dict[str, Any]:
    """Reads every row, so that the query runs to its end, and keeps the first; never holds all.

    Where no row comes, no column's name does.
    """
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    count = 0
    async for row in cursor.stream(query, bound, size=MOST_ROWS):
        columns = columns or [column.name for column in cursor.description or ()]
        if count < MOST_ROWS:
            rows.append(json_row(columns, row))
        count += 1
    return {"status": "success", "rows": rows, "row_count": count, "columns": columns}


def _outcome_of(message: str) -> dict[str, Any]:
    """Of a statement without rows: the command tag, and the number at its end ("UPDATE 3")."""
    last = message.rpartition(" ")[2]
    return {"status": "success", "row_count": int(last) if last.isdecimal() else 0, "message": message}


def _parameters_of(data: dict[str, Any]) -> dict[str, Any]:
    return {name: Jsonb(value) if isinstance(value, (dict, list)) else value for name, value in data.items()}


def _type_of(error: psycopg.Error) -> str:
    return f"postgres.{error.sqlstate or type(error).__name__}"
