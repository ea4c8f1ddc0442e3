"""`dev`: everything on this machine, with nothing installed but Python.

Owns the command line and the signals. The parts themselves are the supervisor's.
"""

import re
import shlex
import signal
from contextlib import suppress
from pathlib import Path

import click

from broker.cli.output import note
from broker.cli.parameters import AddressType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option(
    "--data",
    envvar="REPRISE_DATA",
    show_envvar=True,
    default=".reprise",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the database is kept from run to run.",
)
@click.option(
    "--logs",
    envvar="REPRISE_LOGS",
    show_envvar=True,
    default="logs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where broker.log and worker.log go.",
)
@click.option(
    "--listen",
    envvar="REPRISE_LISTEN",
    show_envvar=True,
    default="127.0.0.1:50051",
    show_default=True,
    metavar="HOST:PORT",
    type=AddressType(),
    help="Where the broker serves; port 0 takes a free one.",
)
@click.option(
    "--database-url",
    envvar="REPRISE_DATABASE_URL",
    show_envvar=True,
    metavar="URL",
    help="Use this PostgreSQL instead of starting one.",
)
def dev(data: Path, logs: Path, listen: str, database_url: str | None) -> None:
    """Run PostgreSQL, a broker and a worker until Ctrl-C or SIGTERM. Prints one line when they are ready."""
    from broker.embedded import BinariesNotFound, PostgresFailed
    from broker.supervisor import DRAIN_SECONDS, ChildFailed, LogsInUse, Stack, StackConfig

    # SIGINT too: a shell that starts it in the background has set that to be ignored.
    for number in _ENDING:
        signal.signal(number, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt), Stack(StackConfig(data, logs, listen, database_url)) as stack:
            try:
                click.echo(_ready_line(stack.address, stack.database_url, stack.log_files))
                stack.keep_running(note)
            finally:
                _ignore_further_signals()
                note(f"stopping: attempts that run have {DRAIN_SECONDS} s to end")
    except LogsInUse as error:
        raise click.ClickException(
            f"{error}: stop that one, or choose other folders with --logs and --data"
        ) from error
    except (BinariesNotFound, PostgresFailed, ChildFailed, OSError) as error:
        raise click.ClickException(str(error)) from error


def _ready_line(address: str, database_url: str, log_files: tuple[Path, ...]) -> str:
    """One line, whose values can be pasted into a shell; a password in the URL is left out."""
    shown = shlex.quote(re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", database_url))
    logs = ",".join(map(str, log_files))
    return f"ready broker={address} database={shown} logs={logs}"


def _ignore_further_signals() -> None:
    """A second Ctrl-C must not interrupt the stop, which takes seconds at most."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
