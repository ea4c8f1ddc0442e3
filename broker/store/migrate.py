"""Brings a database to the schema version of this broker.

Owns the numbered files in `migrations/`: forward only, each applied once, in one transaction each, under an advisory lock so
that two brokers that start at once apply nothing twice. Must not run on its own: only `reprise migrate` and `--migrate` call it.
"""

import re
from dataclasses import dataclass
from importlib import resources

import psycopg

# Any constant will do, as long as every version of the broker takes the same one.
_LOCK = 0x52455052

_VERSIONS = """
CREATE SCHEMA IF NOT EXISTS noetl;
CREATE TABLE IF NOT EXISTS noetl.schema_version (
  version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file: its version (from 1, without gaps), its name, and its SQL."""

    version: int
    name: str
    sql: str


class SchemaMismatch(Exception):
    """The database is on another schema version than this broker; the text says which command to run."""


def migrations() -> tuple[Migration, ...]:
    """All migrations of this broker, oldest first. Raises RuntimeError where the numbers have a gap."""
    found = []
    for file in resources.files("broker.store").joinpath("migrations").iterdir():
        matched = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if matched:
            found.append(Migration(int(matched[1]), file.name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise RuntimeError("migrations are not numbered 1, 2, 3, …")
    return tuple(found)


async def migrate(database_url: str) -> list[str]:
    """The names of the migrations that were applied, oldest first; empty if the database was up to date.

    Waits for another migration that runs at the same time. Raises SchemaMismatch if the database is newer than this broker.
    """
    applied: list[str] = []
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        await connection.execute(_VERSIONS)
        current = await _current_version(connection)
        known = migrations()
        if current > len(known):
            raise SchemaMismatch(
                f"the database is on schema version {current}, this broker knows {len(known)}: install a newer broker"
            )
        for migration in known[current:]:
            async with connection.transaction():
                await connection.execute(migration.sql.encode())
                await connection.execute(
                    "INSERT INTO noetl.schema_version (version, name) VALUES (%s, %s)",
                    (migration.version, migration.name),
                )
            applied.append(migration.name)
    return applied


async def check_version(database_url: str) -> None:
    """Returns when the database is on this broker's schema version; raises SchemaMismatch where it is not."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        exists = await (await connection.execute("SELECT to_regclass('noetl.schema_version')")).fetchone()
        current = await _current_version(connection) if exists and exists[0] else 0
    wanted = len(migrations())
    if current < wanted:
        raise SchemaMismatch(
            f"the database is on schema version {current}, this broker needs {wanted}: run `reprise migrate`"
        )
    if current > wanted:
        raise SchemaMismatch(
            f"the database is on schema version {current}, this broker knows {wanted}: install a newer broker"
        )


async def _current_version(connection: psycopg.AsyncConnection) -> int:
    row = await (
        await connection.execute("SELECT coalesce(max(version), 0) FROM noetl.schema_version")
    ).fetchone()
    return int(row[0]) if row else 0
