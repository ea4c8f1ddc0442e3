"""`queues`: the backlog of each queue.

Must not change any.
"""

import click
from reprise.v1.queue_service_pb2 import ListQueuesRequest, Queue

from broker.cli import options
from broker.cli.connection import Broker, with_broker
from broker.cli.output import Column, Span, as_json, length_of, print_json, print_table

_COUNTS = ("queued", "scheduled", "leased", "retry", "held", "dead", "workers")


@click.command()
@options.json_wanted
@with_broker
def queues(broker: Broker, json_wanted: bool) -> None:
    """List queues: how many jobs wait, run, await a retry or are dead, and how old the oldest due one is."""
    found = broker.call(broker.queues.ListQueues, ListQueuesRequest()).queues
    if json_wanted:
        print_json([as_json(queue) for queue in found])
        return
    columns = [
        Column("queue"),
        *(Column(name, number=True) for name in _COUNTS),
        Column("oldest_due_age"),
        Column("paused"),
    ]
    print_table(columns, [_row(queue) for queue in found])


def _row(queue: Queue) -> tuple[Span, ...]:
    return (
        Span(queue.name, "bold"),
        *(_count(queue, name) for name in _COUNTS),
        Span(length_of(queue.oldest_due_age)),
        Span("paused", "yellow") if queue.paused else Span(""),
    )


def _count(queue: Queue, name: str) -> Span:
    """A count; with ~ in front where it may be an estimate."""
    count = getattr(queue, name)
    about = "~" if count and queue.estimated and name != "workers" else ""
    return Span(f"{about}{count}", "" if count else "dim")
