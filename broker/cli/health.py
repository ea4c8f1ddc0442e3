"""`health`: the standard gRPC probe, for container health checks.

Must not know anything of the broker but the probe.
"""

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from broker.cli.connection import Broker, with_broker
from broker.cli.output import Span, note, print_line
from broker.cli.refusal import failure_of


@click.command()
@click.option(
    "--service", default="", help="Ask for one service, like reprise.v1.BrokerService. Default: the whole."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds to wait.",
)
@with_broker
def health(broker: Broker, service: str, timeout: float) -> None:
    """Ask whether the broker serves: exit code 0 if it does, 1 if not."""
    probe = health_pb2_grpc.HealthStub(broker.channel)
    try:
        answer = probe.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    except grpc.RpcError as error:
        raise failure_of(error, broker.address) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        note(f"{broker.address} is not serving")
        raise click.exceptions.Exit(1)
    print_line(Span("serving", "green"))
