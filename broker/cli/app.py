"""The root of the command line: its global options and the table of its commands.

Owns which commands there are and where they live. Must not import them.
"""

import click

from broker.cli.lazy import LazyCommand, LazyGroup

DEFAULT_BROKER = "127.0.0.1:50051"

_SECTIONS = {
    "All in one": (
        LazyCommand("dev", "broker.cli.dev:dev", "Run PostgreSQL, a broker and a worker together."),
        LazyCommand("demo", "broker.cli.demo:demo", "Show a step that fails, is retried and ends dead."),
    ),
    "Playbooks": (
        LazyCommand("register", "broker.cli.playbooks:register", "Register playbooks from YAML files."),
        LazyCommand("run", "broker.cli.executions:run", "Start an execution of a playbook."),
        LazyCommand("playbooks", "broker.cli.playbooks:playbooks", "List playbooks, or show one's YAML."),
        LazyCommand("executions", "broker.cli.executions:executions", "List executions, or show one."),
        LazyCommand("cancel", "broker.cli.executions:cancel", "Cancel an execution."),
    ),
    "Jobs": (
        LazyCommand("enqueue", "broker.cli.enqueue:enqueue", "Put a job in a queue."),
        LazyCommand("queue", "broker.cli.jobs:queue", "Show jobs as rows of the queue."),
        LazyCommand("jobs", "broker.cli.jobs:jobs", "List jobs with their last failure."),
        LazyCommand("job", "broker.cli.jobs:job", "Show one job in full."),
        LazyCommand("events", "broker.cli.events:events", "Show the history of an execution or a job."),
        LazyCommand("queues", "broker.cli.queues:queues", "List queues with their backlog."),
    ),
    "In parts": (
        LazyCommand("migrate", "broker.cli.processes:migrate", "Bring the database to this schema version."),
        LazyCommand("broker", "broker.cli.processes:broker", "Run a broker."),
        LazyCommand("worker", "broker.cli.processes:worker", "Run a worker."),
        LazyCommand("health", "broker.cli.health:health", "Ask whether the broker serves."),
    ),
}


@click.group(
    cls=LazyGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 the thing failed, 2 wrong use. More: reprise COMMAND --help.",
)
@click.option(
    "--broker",
    "address",
    metavar="HOST:PORT",
    envvar="REPRISE_BROKER",
    show_envvar=True,
    default=DEFAULT_BROKER,
    show_default=True,
    help="The broker to talk to.",
)
@click.version_option(package_name="reprise", message="%(prog)s %(version)s")
@click.pass_context
def reprise(ctx: click.Context, address: str) -> None:
    """A job broker that decides retries: enqueue jobs, run playbooks, see what happened and why."""
    ctx.obj = address
