"""`broker`, `worker` and `migrate`: the parts, each as a process of its own.

Owns their command lines only. Must not do their work, nor import them before they run.
"""

import asyncio
import logging
import os
import signal
import sys

import click

from broker.cli.parameters import AddressType
from broker.config import RETENTION_DAYS, BrokerConfig

_database_url = click.option(
    "--database-url",
    envvar="REPRISE_DATABASE_URL",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="The PostgreSQL database, like postgresql://user@host/name.",
)

_OTHER_ADDRESS = "Choose another address with --listen"


@click.command()
@click.option(
    "--listen",
    envvar="REPRISE_LISTEN",
    show_envvar=True,
    default="127.0.0.1:50051",
    show_default=True,
    metavar="HOST:PORT",
    type=AddressType(),
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
    "--processes",
    envvar="REPRISE_PROCESSES",
    show_envvar=True,
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many processes serve that port, for more cores than one.",
)
@click.option("--process", type=int, hidden=True, help="The number of this process, of several.")
@click.option(
    "--retention-days",
    envvar="REPRISE_RETENTION_DAYS",
    show_envvar=True,
    default=RETENTION_DAYS,
    show_default=True,
    type=click.IntRange(min=0),
    help="How long jobs and executions are kept after their end; 0: for ever.",
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
def broker(
    listen: str,
    database_url: str,
    migrate_first: bool,
    processes: int,
    process: int | None,
    retention_days: int,
    log_level: str,
) -> None:
    """Run a broker until SIGTERM or Ctrl-C. Prints `ready listen=HOST:PORT` to standard error."""
    _log_to_stderr(log_level, process)
    if process is None and processes > 1:
        _run_several(listen, database_url, migrate_first, processes, retention_days, log_level)
    else:
        config = BrokerConfig(
            database_url,
            listen,
            migrate_first,
            shares_port=process is not None,
            retention_days=retention_days,
        )
        _run_one(config, process)


def _run_one(config: BrokerConfig, process: int | None) -> None:
    """Serves in this process; as one of several it says so on its standard output, to the process that started it."""
    import psycopg

    from broker.errors import RepriseError
    from broker.server import ListenFailed, serve
    from broker.store.migrate import SchemaMismatch

    try:
        asyncio.run(serve(config, _announce if process is None else click.echo))
    except ListenFailed as error:
        raise click.ClickException(f"{error} {_OTHER_ADDRESS}") from error
    except (SchemaMismatch, RepriseError, psycopg.Error) as error:
        raise click.ClickException(str(error).strip()) from error


def _run_several(
    listen: str, database_url: str, migrate_first: bool, processes: int, retention_days: int, log_level: str
) -> None:
    """Serves in processes of their own. This one must not touch gRPC."""
    from broker.supervisor.fleet import Fleet, PortTaken, ProcessEnded

    def command(number: int, address: str) -> list[str]:
        # -P: a broker.py in the current directory must not be taken for ours.
        one = [sys.executable, "-P", "-m", "broker.cli", "broker", "--process", str(number)]
        return [
            *one,
            "--listen",
            address,
            "--log-level",
            log_level,
            "--retention-days",
            str(retention_days),
            *(["--migrate"] if migrate_first else []),
        ]

    # Not on the command line, which every user of the machine can read.
    environment = {**os.environ, "REPRISE_DATABASE_URL": database_url}
    try:
        asyncio.run(Fleet(command, environment, processes).run(listen, _announce))
    except PortTaken as error:
        raise click.ClickException(f"{error} {_OTHER_ADDRESS}") from error
    except ProcessEnded as error:
        raise click.exceptions.Exit(error.code if error.code > 0 else 1) from error


@click.command()
@_database_url
def migrate(database_url: str) -> None:
    """Bring the database to the schema version of this broker; safe to repeat."""
    import psycopg

    from broker.store.migrate import SchemaMismatch
    from broker.store.migrate import migrate as apply_migrations

    async def apply() -> list[str]:
        # Left alone, SIGTERM would not end the first process of a container.
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await apply_migrations(database_url)

    try:
        applied = asyncio.run(apply())
    except asyncio.CancelledError as error:
        raise click.ClickException("stopped before the end: run it again") from error
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


def _log_to_stderr(level: str, process: int | None) -> None:
    which = "" if process is None else f"process={process} "
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {which}%(message)s",
        force=True,
    )


def _announce(address: str) -> None:
    """Says at any log level that it is ready."""
    if logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger(__name__).info("ready listen=%s", address)
    else:
        click.echo(f"ready listen={address}", err=True)
