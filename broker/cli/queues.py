"""`queues`: the backlog of each queue.

Must not change any.
"""

import click
from reprise.v1.queue_service_pb2 import ListQueuesRequest, Queue

from broker.cli import options
from broker.cli.connection import Broker, with_broker
from broker.cli.output import Column, Span, as_json, length_of, print_json, print_table

# What no queue has is not shown: a column of zeros would ask what it is for.
_SELDOM = frozenset({"held"})
_COUNTS = ("queued", "scheduled", "leased", "retry", "held", "dead", "workers")


@click.command()
@options.json_wanted
@with_broker
def queues(broker: Broker, json_wanted: bool) -> None:
    """List queues: how many jobs wait, run, await a retry or are dead, and how old the oldest due one is.

    All is of the whole database but `workers`: those are the streams of the broker process that answers.
    """
    found = broker.call(broker.queues.ListQueues, ListQueuesRequest()).queues
    if json_wanted:
        print_json([as_json(queue) for queue in found])
        return
    counts = [name for name in _COUNTS if name not in _SELDOM or any(getattr(queue, name) for queue in found)]
    any_paused = any(queue.paused for queue in found)
    columns = [
        Column("queue"),
        *(Column(name, number=True) for name in counts),
        Column("oldest_due_age"),
        *([Column("paused")] if any_paused else []),
    ]
    rows = [
        (
            Span(queue.name, "bold"),
            *(_count(queue, name) for name in counts),
            Span(length_of(queue.oldest_due_age)),
            *([Span("paused", "yellow") if queue.paused else Span("")] if any_paused else []),
        )
        for queue in found
    ]
    print_table(columns, rows)


def _count(queue: Queue, name: str) -> Span:
    """A count; with ~ in front where it may be an estimate."""
    count = getattr(queue, name)
    about = "~" if count and queue.estimated and name != "workers" else ""
    return Span(f"{about}{count}", "" if count else "dim")
