"""`enqueue`: one job into a queue.

Must not judge the job: the broker does.
"""

import uuid

import click
from google.protobuf.duration_pb2 import Duration
from reprise.v1.broker_service_pb2 import EnqueueRequest
from reprise.v1.job_pb2 import NewJob
from reprise.v1.retry_pb2 import RetryPolicy

from broker.cli import options
from broker.cli.connection import Broker, with_broker
from broker.cli.output import Span, as_json, note, print_json, print_line
from broker.cli.parameters import DurationType, JsonObjectType, LabelType
from broker.cli.retry_option import RetryType


@click.command()
@click.option("--kind", required=True, help="What a worker does with it: the name of an executor or handler.")
@click.option("--queue", "queue_name", default="default", show_default=True, help="The queue it waits in.")
@click.option(
    "--input",
    "input_json",
    type=JsonObjectType(),
    default="{}",
    help="""What the executor gets: a JSON object like '{"to": "ada"}', the FILE that holds one, or - for stdin.""",
)
@click.option(
    "--delay", type=DurationType(), help="First run after this long (5s, 500ms, 2m). Default: at once."
)
@click.option("--priority", type=int, default=0, help="-100 to 100, higher first.")
@click.option(
    "--retry",
    type=RetryType(),
    help="""How failures are retried: true, 5, or '{"max_attempts": 3}'. Default: one attempt.""",
)
@click.option("--attempt-timeout", type=DurationType(), help="The longest that one attempt may run.")
@click.option("--dependency", default="", help="The downstream that it calls.")
@click.option("--label", "labels", type=LabelType(), multiple=True, help="A label to find it by; repeatable.")
@click.option("--key", help="Idempotency key: the same job again is the first one. Default: a new one.")
@options.json_wanted
@with_broker
def enqueue(
    broker: Broker,
    kind: str,
    queue_name: str,
    input_json: str,
    delay: Duration | None,
    priority: int,
    retry: RetryPolicy | None,
    attempt_timeout: Duration | None,
    dependency: str,
    labels: tuple[tuple[str, str], ...],
    key: str | None,
    json_wanted: bool,
) -> None:
    """Put a job in a queue and print its id."""
    job = NewJob(
        queue=queue_name,
        kind=kind,
        input_json=input_json,
        priority=priority,
        retry=retry,
        # Without a key a repeated call could enqueue twice.
        idempotency_key=key or str(uuid.uuid4()),
        dependency=dependency,
        labels=dict(labels),
        delay=delay,
        attempt_timeout=attempt_timeout,
    )
    [enqueued] = broker.call(broker.jobs.Enqueue, EnqueueRequest(jobs=[job])).jobs
    if json_wanted:
        print_json(as_json(enqueued))
        return
    print_line(Span(str(enqueued.job_id)))
    if not enqueued.created:
        note("it was there already")
