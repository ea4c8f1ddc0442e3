"""A database comes to the schema of its broker once, under a lock; a broker on any other schema refuses to start."""

import asyncio
from datetime import timedelta

import pytest

from broker.config import BrokerConfig
from broker.server import running
from broker.store import migrate as module
from broker.store.migrate import SchemaMismatch, check_version, migrate, migrations
from tests.contract.tables import Tables
from tests.fixtures_broker import StartProcess

NAMES = [migration.name for migration in migrations()]


async def test_an_empty_database_gets_every_migration_in_order(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == NAMES

    versions = await Tables(empty_database_url).rows("SELECT version FROM noetl.schema_version ORDER BY 1")
    assert [version for (version,) in versions] == list(range(1, len(NAMES) + 1))


async def test_every_day_is_kept_in_shape_alike(empty_database_url: str) -> None:
    await migrate(empty_database_url)

    settings = await Tables(empty_database_url).rows(
        "SELECT relname, reloptions FROM pg_class WHERE relname ~ '^(job|event_log)_20[0-9]{6}$' AND relkind = 'r'"
    )
    assert len(settings) >= 2 * 8
    for name, options in settings:
        assert set(options) == {
            "autovacuum_vacuum_insert_scale_factor=0.5",
            "autovacuum_analyze_scale_factor=0.5",
        }, name


async def test_a_database_that_is_up_to_date_gets_none(empty_database_url: str) -> None:
    await migrate(empty_database_url)

    assert await migrate(empty_database_url) == []


async def test_many_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))

    assert sorted(applied, key=len) == [[], [], [], NAMES]
    await check_version(empty_database_url)


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = module.Migration(len(NAMES) + 1, "broken.sql", "CREATE TABLE noetl.half (); SELECT 1/0")
    monkeypatch.setattr(module, "migrations", lambda: (*migrations(), broken))
    with pytest.raises(Exception, match="division by zero"):
        await migrate(empty_database_url)

    assert await Tables(empty_database_url).value("SELECT to_regclass('noetl.half')") is None
    monkeypatch.undo()
    await check_version(empty_database_url)


async def test_a_database_without_the_schema_is_refused_with_the_command_to_run(
    empty_database_url: str,
) -> None:
    with pytest.raises(SchemaMismatch, match="run `reprise migrate`"):
        await check_version(empty_database_url)


async def test_an_older_database_is_refused_with_the_command_to_run(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    await Tables(empty_database_url).rows("DELETE FROM noetl.schema_version WHERE version = %s", len(NAMES))

    with pytest.raises(SchemaMismatch, match="run `reprise migrate`"):
        await check_version(empty_database_url)


async def test_a_newer_database_is_refused_and_left_alone(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    await Tables(empty_database_url).rows(
        "INSERT INTO noetl.schema_version VALUES (%s, 'later')", len(NAMES) + 1
    )

    for refused in (check_version, migrate):
        with pytest.raises(SchemaMismatch, match="newer"):
            await refused(empty_database_url)


async def test_a_broker_applies_migrations_only_when_told_to(empty_database_url: str) -> None:
    with pytest.raises(SchemaMismatch):
        async with running(BrokerConfig(empty_database_url, "127.0.0.1:0")):
            pass
    assert await Tables(empty_database_url).value("SELECT to_regclass('noetl.job')") is None

    async with running(BrokerConfig(empty_database_url, "127.0.0.1:0", migrate=True, grace_seconds=0.1)):
        await check_version(empty_database_url)


async def test_the_program_refuses_to_start_with_one_line_that_says_what_to_run(
    start_process: StartProcess, empty_database_url: str
) -> None:
    broker = await start_process(
        "broker.cli", "broker", "--listen", "127.0.0.1:0", "--database-url", empty_database_url
    )

    assert await broker.exit_code() != 0
    assert [line for line in broker.lines if "reprise migrate" in line]
    assert not [line for line in broker.lines if "Traceback" in line]


async def test_the_instant_of_an_id_is_never_ahead_of_the_clock(database_url: str) -> None:
    (behind,) = await Tables(database_url).rows(
        """SELECT max(noetl.time_of(noetl.id_at(at)) - at), min(noetl.time_of(noetl.id_at(at)) - at)
        FROM generate_series(timestamptz '2026-01-01', '2026-01-01 00:00:00.01', interval '1 microsecond') at"""
    )

    assert behind == (timedelta(0), timedelta(microseconds=-999))
