"""`events`: the durable history of an execution or of one job.

Must not change any of it.
"""

import click
from reprise.v1.job_pb2 import Event
from reprise.v1.queue_service_pb2 import ListEventsRequest

from broker.cli.connection import Broker, take, with_broker
from broker.cli.narrative import Narrator, tell
from broker.cli.output import (
    Column,
    Span,
    as_json,
    note_more,
    one_line,
    print_json,
    print_json_line,
    print_line,
    print_table,
    time_of_day,
)
from broker.cli.parameters import ID
from broker.cli.watching import updates


@click.command()
@click.argument("execution_id", metavar="[EXECUTION_ID]", required=False, type=ID)
@click.option("--job", "job_id", type=ID, help="The history of this job instead.")
@click.option(
    "--type", "event_types", multiple=True, help="Only events of this type (action_retry); repeatable."
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=0, help="At most so many, the oldest. Default: all."
)
@click.option(
    "--follow", is_flag=True, help="Go on until the execution has ended; not with --job, --type or --limit."
)
@click.option(
    "--json", "json_wanted", is_flag=True, help="Print a JSON array; with --follow one line per event."
)
@with_broker
def events(
    broker: Broker,
    execution_id: int | None,
    job_id: int | None,
    event_types: tuple[str, ...],
    limit: int,
    follow: bool,
    json_wanted: bool,
) -> None:
    """Show what happened, oldest first: each attempt, its error, and what the broker decided and why."""
    if (execution_id is None) == (job_id is None):
        raise click.UsageError("give an EXECUTION_ID, or --job ID")
    if follow:
        if execution_id is None or event_types or limit:
            raise click.UsageError(
                "--follow goes with an EXECUTION_ID alone: not with --job, --type or --limit"
            )
        _follow(broker, execution_id, json_wanted)
        return

    def fetch(size: int, token: str) -> tuple[list[Event], str]:
        request = ListEventsRequest(
            job_id=job_id or 0,
            execution_id=execution_id or 0,
            event_types=event_types,
            page_size=size,
            page_token=token,
        )
        answer = broker.call(broker.queues.ListEvents, request)
        return list(answer.events), answer.next_page_token

    found, more = take(limit, fetch)
    if json_wanted:
        print_json([as_json(event) for event in found])
    else:
        _print_events(found)
    note_more(more)


def _follow(broker: Broker, execution_id: int, json_wanted: bool) -> None:
    narrator = Narrator()
    for update in updates(broker, execution_id):
        if update.HasField("event"):
            if json_wanted:
                print_json_line(as_json(update.event))
            else:
                print_line(*narrator.line(update.event))


def _print_events(found: list[Event]) -> None:
    narrator = Narrator()
    columns = [Column(name) for name in ("created_at", "event_type", "node_name", "attempt")]
    rows = [
        (
            Span(time_of_day(event.created_at), "dim"),
            Span(one_line(event.event_type)),
            Span(one_line(event.step), "bold"),
            Span(narrator.attempt_of(event)),
            tell(event),
        )
        for event in found
    ]
    print_table([*columns, Column("what", prose=True)], rows)
