"""`broker`, `worker` and `migrate`: the parts, each as a process of its own.

Owns their command lines only. Must not do their work, nor import them before they run.
"""

import asyncio
import logging
import os
import sys

import click

_database_url = click.option(
    "--database-url",
    envvar="REPRISE_DATABASE_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The PostgreSQL database, like postgresql://user@host/name.",
)


@click.command()
@click.option(
    "--listen",
    envvar="REPRISE_LISTEN",
    show_envvar=True,
    default="127.0.0.1:50051",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to serve; port 0 takes a free one.",
)
@_database_url
@click.option(
    "--migrate",
    "migrate_first",
    is_flag=True,
    envvar="REPRISE_MIGRATE",
    show_envvar=True,
    help="Bring the database to this schema version first.",
)
@click.option(
    "--log-level",
    envvar="REPRISE_LOG_LEVEL",
    show_envvar=True,
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="How much to log to standard error.",
)
def broker(listen: str, database_url: str, migrate_first: bool, log_level: str) -> None:
    """Run a broker until SIGTERM or Ctrl-C. Prints `ready listen=HOST:PORT` to standard error."""
    import psycopg

    from broker.config import BrokerConfig
    from broker.errors import RepriseError
    from broker.server import ListenFailed, serve
    from broker.store.migrate import SchemaMismatch

    _log_to_stderr(log_level)
    # At the level "info" the broker's own log says that it is ready.
    announce = None if logging.getLogger().isEnabledFor(logging.INFO) else _announce
    try:
        asyncio.run(serve(BrokerConfig(database_url, listen, migrate_first), announce))
    except (SchemaMismatch, ListenFailed, RepriseError, psycopg.Error) as error:
        raise click.ClickException(str(error).strip()) from error


@click.command()
@_database_url
def migrate(database_url: str) -> None:
    """Bring the database to the schema version of this broker; safe to repeat."""
    import psycopg

    from broker.store.migrate import SchemaMismatch
    from broker.store.migrate import migrate as apply_migrations

    try:
        applied = asyncio.run(apply_migrations(database_url))
    except (SchemaMismatch, psycopg.Error) as error:
        raise click.ClickException(str(error).strip()) from error
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("up to date")


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def worker(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run a worker: becomes `python -m worker` with the same arguments."""
    environment = {**os.environ, "REPRISE_BROKER": ctx.find_root().obj}
    # -P: a worker.py in the current directory must not be taken for ours.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "worker", *arguments], environment)  # noqa: S606


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", force=True
    )


def _announce(address: str) -> None:
    click.echo(f"ready listen={address}", err=True)
