"""Step type `duckdb`: SQL on a database in memory or in a file, in a process that a timeout can kill."""

from collections.abc import Mapping
from typing import Any, Self

from worker.executors.child_process import ChildProcess
from worker.executors.sql_input import commands_of
from worker.failure import INPUT_INVALID, JobFailed
from worker.job import Job


class DuckdbStep:
    """Input: `command`, `commands` or `query`; `data` for $name parameters; `database`, a path (default: in
    memory).

    A database file is locked while a step has it open: a second one fails with duckdb.IOException, which is
    worth a retry.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = ChildProcess("duckdb_sql", environment)

    async def __aenter__(self) -> Self:
        # Few workers run such steps, and DuckDB takes long to import: its parent starts with the first one.
        await self._process.open(at_once=False)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._process.close()

    async def execute(self, job: Job) -> Any:
        """`{"command_N": {"status", "rows", "row_count", "columns"}}`.

        Raises JobFailed "duckdb.<class of its error>".
        """
        if job.input.get("auth") is not None:
            raise JobFailed("a duckdb step takes no auth", type=INPUT_INVALID)
        data, database = job.input.get("data"), job.input.get("database")
        given = {
            "database": str(database) if database else ":memory:",
            "commands": commands_of(job.input),
            "data": data if isinstance(data, dict) else {},
        }
        return await self._process.run(given)
