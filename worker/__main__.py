"""`python -m worker`: a worker with the standard executors."""

from pathlib import Path

import click

from worker.config import DEFAULT_BROKER, CredentialsInvalid, child_environment, load_credentials
from worker.executors.standard import standard_executors
from worker.log_lines import log_to_stderr
from worker.runner import WorkerRefused
from worker.sdk import Worker


@click.command(
    name="worker",
    context_settings={
        "show_default": True,
        "auto_envvar_prefix": None,
        "help_option_names": ["-h", "--help"],
    },
)
@click.option(
    "--broker",
    envvar="REPRISE_BROKER",
    show_envvar=True,
    default=DEFAULT_BROKER,
    help="HOST:PORT of the broker.",
)
@click.option(
    "--queues",
    envvar="REPRISE_QUEUES",
    show_envvar=True,
    default="default",
    help="Queues to serve, separated by commas, strictly in this order.",
)
@click.option(
    "--concurrency",
    envvar="REPRISE_CONCURRENCY",
    show_envvar=True,
    default=10,
    type=click.IntRange(1, 10_000),
    help="Steps at a time.",
)
@click.option(
    "--lease-seconds",
    envvar="REPRISE_LEASE_SECONDS",
    show_envvar=True,
    default=30.0,
    type=click.FloatRange(1, 3600),
    help="How long a lease lasts unless it is extended.",
)
@click.option(
    "--drain-seconds",
    envvar="REPRISE_DRAIN_SECONDS",
    show_envvar=True,
    default=30.0,
    type=click.FloatRange(min=0),
    help="How long running steps may finish after SIGTERM.",
)
@click.option(
    "--worker-id",
    envvar="REPRISE_WORKER_ID",
    show_envvar=True,
    show_default="host, process id and a random part",
    help="Name in events and logs.",
)
@click.option(
    "--credentials",
    envvar="REPRISE_CREDENTIALS",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON file of the credentials that steps name; also REPRISE_CREDENTIAL_<NAME>.",
)
@click.option(
    "--log-level",
    envvar="REPRISE_LOG_LEVEL",
    show_envvar=True,
    default="info",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Least level that is logged.",
)
def main(
    broker: str,
    queues: str,
    concurrency: int,
    lease_seconds: float,
    drain_seconds: float,
    worker_id: str | None,
    credentials: Path | None,
    log_level: str,
) -> None:
    """Takes jobs from a broker and runs them: python, http, postgres, duckdb.

    SIGTERM or SIGINT: takes no more, lets running steps finish, gives the rest back, exits 0. A second one:
    at once.
    """
    log_to_stderr(log_level)
    names = [name.strip() for name in queues.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("names no queue", param_hint="--queues")
    try:
        known = load_credentials(credentials)
    except (CredentialsInvalid, OSError) as error:
        raise click.BadParameter(str(error), param_hint="--credentials") from error
    worker = Worker(
        broker,
        queues=names,
        concurrency=concurrency,
        lease_seconds=lease_seconds,
        drain_seconds=drain_seconds,
        worker_id=worker_id,
        executors=standard_executors(known, child_environment()),
        credentials=known,
    )
    try:
        worker.run()
    except WorkerRefused as error:
        raise click.ClickException(f"the broker refuses this worker: {error}") from error


if __name__ == "__main__":
    # What people type: it becomes this process.
    main(prog_name="reprise worker")
