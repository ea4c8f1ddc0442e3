"""What a test reads in the database: a job's row, its events, in the words of the two views."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

import psycopg


class JobRow(NamedTuple):
    """One row of noetl.queue."""

    status: str
    attempts: int
    max_attempts: int
    available_at: datetime | None


class EventRow(NamedTuple):
    """One row of noetl.event."""

    event_type: str
    attempt: int
    worker_id: str | None
    created_at: datetime
    result: Any


class Tables:
    """Reads, and now and then writes, a test's database beside the broker."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url

    async def rows(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """All rows of a statement; committed."""
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode(), arguments)
            return await cursor.fetchall() if cursor.description else []

    async def value(self, statement: str, *arguments: object) -> Any:
        """The one value of a statement."""
        ((value,),) = await self.rows(statement, *arguments)
        return value

    async def job(self, job_id: int) -> JobRow:
        """Where a job stands."""
        (row,) = await self.rows(
            "SELECT status, attempts, max_attempts, available_at FROM noetl.queue WHERE queue_id = %s", job_id
        )
        return JobRow._make(row)

    async def standing(self, job_id: int) -> str:
        """A job's status and attempts in one text: "retry 1/3"."""
        job = await self.job(job_id)
        return f"{job.status} {job.attempts}/{job.max_attempts}"

    async def events(self, job_id: int, *event_types: str) -> list[EventRow]:
        """A job's events, oldest first; of all types unless some are named."""
        rows = await self.rows(
            """SELECT event_type, attempt, worker_id, created_at, result::text FROM noetl.event
            WHERE job_id = %s AND (%s::text[] = '{}' OR event_type = ANY(%s)) ORDER BY event_id""",
            job_id,
            list(event_types),
            list(event_types),
        )
        return [EventRow._make((*row[:4], None if row[4] is None else json.loads(row[4]))) for row in rows]

    async def story(self, job_id: int) -> list[str]:
        """The types of a job's events, oldest first."""
        return [event.event_type for event in await self.events(job_id)]

    async def write_errors_apart(self) -> None:
        """Has each error in a row of its own, before that of its verdict, as brokers wrote them until migration 0012."""
        await self.rows(
            """INSERT INTO noetl.event_log (event_id, job_id, lease_id, kind, attempt, max_attempts, worker_id, detail, started_id)
            SELECT event_id - 1, job_id, lease_id, 4, attempt, max_attempts, worker_id, error, started_id
            FROM noetl.event_log WHERE error IS NOT NULL"""
        )
        await self.rows(
            "UPDATE noetl.event_log SET error = NULL, worker_id = NULL, started_id = NULL WHERE error IS NOT NULL"
        )

    async def now(self) -> datetime:
        """The instant by the clock of all statements."""
        now: datetime = await self.value("SELECT noetl.clock()")
        return now

    @asynccontextmanager
    async def held_back(self, table: str) -> AsyncIterator[None]:
        """Inside the block nothing can be written to a table: the statements that try wait."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as connection:
            await connection.execute(f"LOCK TABLE noetl.{table} IN SHARE MODE".encode())
            yield

    def leasing_held_back(self) -> AbstractAsyncContextManager[None]:
        """Inside the block nothing can be leased."""
        return self.held_back("lease")

    async def is_available(self, job_id: int) -> bool:
        """Whether a job waits for a worker, and for no time."""
        return bool(await self.value("SELECT count(*) FROM noetl.ready WHERE job_id = %s", job_id))

    async def somebody_waits_for_a_lock(self) -> bool:
        """Whether a statement has come as far as what is held back."""
        return bool(
            await self.value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
