"""The line to the broker: channel, deadlines, and repeats of calls that the broker asks to see again.

Owns every call of the command line. Must not print anything but a call's failure.
"""

import time
from collections.abc import Callable, Sequence
from functools import cached_property, update_wrapper
from itertools import count
from typing import Any, TypeVar

import click
import grpc
from reprise.v1.broker_service_pb2_grpc import BrokerServiceStub
from reprise.v1.playbook_service_pb2_grpc import PlaybookServiceStub
from reprise.v1.queue_service_pb2_grpc import QueueServiceStub

from broker.cli.refusal import failure_of, retry_delay

_DEADLINE_SECONDS = 15.0
_REPEATS = 4
_LONGEST_PAUSE_SECONDS = 5.0
# The largest page that ListJobs and ListEvents give.
_PAGE = 1000

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # A watch notices a connection that died silently.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A broker that restarts is found at once: by default gRPC would wait longer each time, up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")


class Broker:
    """A broker at an address. Nothing is connected before the first call."""

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def channel(self) -> grpc.Channel:
        """The one channel of this process. It goes straight to the broker, past any proxy."""
        return grpc.insecure_channel(self.address, options=_OPTIONS)

    @cached_property
    def jobs(self) -> BrokerServiceStub:
        """The data plane."""
        return BrokerServiceStub(self.channel)

    @cached_property
    def queues(self) -> QueueServiceStub:
        """The operator's plane."""
        return QueueServiceStub(self.channel)

    @cached_property
    def playbooks(self) -> PlaybookServiceStub:
        """Playbooks and executions."""
        return PlaybookServiceStub(self.channel)

    def call(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """The answer, within 15 s for each try.

        A refusal that carries RetryInfo is repeated up to four times after the time it names; so only
        calls that may arrive twice belong here. Raises CallFailed with what to tell the user.
        """
        for repeat in count():
            try:
                return method(request, timeout=_DEADLINE_SECONDS)
            except grpc.RpcError as error:
                pause = retry_delay(error)
                if pause is None or repeat == _REPEATS:
                    raise failure_of(error, self.address) from error
                time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        raise AssertionError("counting never ends")


def take(limit: int, fetch: Callable[[int, str], tuple[Sequence[Item], str]]) -> tuple[list[Item], bool]:
    """The first `limit` items over all pages (0: every one), and whether there are more.

    `fetch` gets a page size and a page token and gives the page's items and the next token, empty at the end.
    """
    items: list[Item] = []
    token = ""
    while True:
        wanted = min(limit - len(items), _PAGE) if limit else _PAGE
        page, token = fetch(wanted, token)
        items.extend(page)
        if not token or (limit and len(items) >= limit):
            return items, bool(token)


def with_broker(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with a first argument `broker`, and with --broker accepted after its name too."""

    @click.option("--broker", "address", metavar="HOST:PORT", help="As before the command's name.")
    @click.pass_context
    def run(ctx: click.Context, /, address: str | None, **arguments: object) -> object:
        return ctx.invoke(command, Broker(address or ctx.find_root().obj), **arguments)

    return update_wrapper(run, command)
