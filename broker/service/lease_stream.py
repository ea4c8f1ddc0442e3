"""The Lease call: one client's stream between the contract and the dispatcher."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import NamedTuple

from reprise.v1 import broker_service_pb2 as pb

from broker.dispatcher import Dispatcher, LeaseStream
from broker.errors import InvalidArgument, Unavailable, Violation
from broker.lifecycle.tokens import TokenCodec
from broker.service.translate.instants import read_duration
from broker.service.translate.leases import LeaseWriter, token_of
from broker.service.translate.new_jobs import NAME_RULE, is_name

SIGN_OF_LIFE_SECONDS = 10.0
_HALF_CLOSE_SECONDS = 0.01
_MAX_CREDITS = 10_000
_MAX_RECEIVED = 10_000
# Some 44 bytes each: far from the 3 MiB of a message.
_NOTICES_PER_MESSAGE = 10_000
_MAX_QUEUES = 64
_MAX_WORKER_ID = 200
_DEFAULT_LEASE = timedelta(seconds=30)
SHORTEST_LEASE = timedelta(seconds=1)
LONGEST_LEASE = timedelta(hours=1)
_LONGEST_WAIT = timedelta(seconds=60)


class Subscription(NamedTuple):
    """What the first message of a stream asks for."""

    worker_id: str
    queues: tuple[str, ...]
    lease_seconds: float
    wait_seconds: float


async def serve_stream(
    requests: AsyncIterator[pb.LeaseRequest],
    peer: str,
    dispatcher: Dispatcher,
    codec: TokenCodec,
    closing: asyncio.Event,
) -> AsyncGenerator[pb.LeaseResponse, None]:
    """The responses of one Lease call. Raises InvalidArgument on a bad message, Unavailable when the broker shuts down."""
    try:
        first = await anext(requests)
    except StopAsyncIteration:
        raise InvalidArgument(
            Violation("queues", "the first message subscribes, and there was none")
        ) from None
    wanted = read_subscription(first, peer)
    stream = dispatcher.subscribe(wanted.worker_id, wanted.queues, wanted.lease_seconds)
    reader = asyncio.create_task(_read(first, requests, stream, dispatcher, codec))
    stop = asyncio.create_task(closing.wait())
    for end in (reader, stop):
        end.add_done_callback(lambda _: stream.changed.set())
    try:
        async for response in _responses(stream, reader, stop, wanted.wait_seconds, dispatcher, codec):
            yield response
    finally:
        reader.cancel()
        stop.cancel()
        dispatcher.unsubscribe(stream)


async def _responses(
    stream: LeaseStream,
    reader: asyncio.Task[None],
    stop: asyncio.Task[bool],
    wait_seconds: float,
    dispatcher: Dispatcher,
    codec: TokenCodec,
) -> AsyncGenerator[pb.LeaseResponse, None]:
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + wait_seconds
    delivered = False
    writer = LeaseWriter(codec, stream.lease_seconds)
    while True:
        for response in _take(stream, writer, codec):
            delivered = True
            yield response
        dispatcher.taken(stream)
        if reader.done() and reader.exception() is not None:
            await reader
        if stop.done():
            raise Unavailable("the broker shuts down")
        if stream.error is not None:
            raise stream.error
        if stream.outbox or stream.notices:
            continue
        if stream.polls and _poll_is_over(stream, delivered=delivered, waited=loop.time() >= ends_at):
            return
        now = loop.time()
        until = _next_sign_of_life(now)
        if stream.polls and now < ends_at:
            until = min(until, ends_at)
        if not await _changed(stream, until) and not stream.polls:
            yield pb.LeaseResponse()


def _poll_is_over(stream: LeaseStream, *, delivered: bool, waited: bool) -> bool:
    return stream.open_credits <= 0 or (stream.settled and (delivered or waited))


def _next_sign_of_life(now: float) -> float:
    """When a stream that is silent from now on says that it lives: an instant that streams share, to wake the broker seldom."""
    between = SIGN_OF_LIFE_SECONDS / 10
    return (now + SIGN_OF_LIFE_SECONDS) // between * between


async def _changed(stream: LeaseStream, until: float) -> bool:
    """True when the stream has something to send or to notice, False at that instant of the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            await stream.changed.wait()
    except TimeoutError:
        return False
    stream.changed.clear()
    return True


def _take(stream: LeaseStream, writer: LeaseWriter, codec: TokenCodec) -> list[pb.LeaseResponse]:
    """What waits to be sent, in messages of bounded size."""
    outbox, stream.outbox = stream.outbox, []
    notices, stream.notices = stream.notices, []
    responses = writer.responses(outbox)
    for start in range(0, len(notices), _NOTICES_PER_MESSAGE):
        responses.append(
            pb.LeaseResponse(
                notices=[
                    pb.LeaseNotice(
                        lease_token=token_of(codec, grant), kind=pb.LeaseNotice.Kind.ValueType(notice)
                    )
                    for grant, notice in notices[start : start + _NOTICES_PER_MESSAGE]
                ]
            )
        )
    return responses


async def _read(
    first: pb.LeaseRequest,
    requests: AsyncIterator[pb.LeaseRequest],
    stream: LeaseStream,
    dispatcher: Dispatcher,
    codec: TokenCodec,
) -> None:
    """Takes credits and receipts until the client closes its side. Raises InvalidArgument on a bad message."""
    _take_request(first, stream, dispatcher, codec)
    async for request in requests:
        _take_request(request, stream, dispatcher, codec)
    # A call that is cancelled or reset ends its requests too, just before this task is cancelled: only who lives on has half-closed.
    await asyncio.sleep(_HALF_CLOSE_SECONDS)
    dispatcher.close_side(stream)


def _take_request(
    request: pb.LeaseRequest, stream: LeaseStream, dispatcher: Dispatcher, codec: TokenCodec
) -> None:
    if request.credits < 0 or stream.open_credits + request.credits > _MAX_CREDITS:
        raise InvalidArgument(
            Violation("credits", f"must be 0 or more, and unused ones at most {_MAX_CREDITS} together")
        )
    if len(request.received) > _MAX_RECEIVED:
        raise InvalidArgument(
            Violation("received", f"must be at most {_MAX_RECEIVED}, not {len(request.received)}")
        )
    if request.received:
        received = (codec.read(token) for token in request.received)
        dispatcher.receive(stream, [lease.lease_id for lease in received if lease is not None])
    if request.credits:
        dispatcher.add_credits(stream, request.credits)


def read_subscription(request: pb.LeaseRequest, peer: str) -> Subscription:
    """What a stream asks for, defaults filled in. Raises InvalidArgument naming every bad field."""
    violations: list[Violation] = []
    queues = tuple(request.queues) or ("default",)
    if len(queues) > _MAX_QUEUES:
        violations.append(Violation("queues", f"must be at most {_MAX_QUEUES}"))
    violations.extend(
        Violation(f"queues[{index}]", NAME_RULE) for index, queue in enumerate(queues) if not is_name(queue)
    )
    worker_id = request.worker_id or peer
    if len(worker_id) > _MAX_WORKER_ID or "\0" in worker_id:
        violations.append(Violation("worker_id", f"must be 1 to {_MAX_WORKER_ID} characters without NUL"))
    lease = (
        read_duration(
            request.lease_duration, "lease_duration", violations, least=SHORTEST_LEASE, most=LONGEST_LEASE
        )
        if request.HasField("lease_duration")
        else _DEFAULT_LEASE
    )
    wait = (
        read_duration(request.wait, "wait", violations, least=timedelta(), most=_LONGEST_WAIT)
        if request.HasField("wait")
        else timedelta()
    )
    if violations:
        raise InvalidArgument(*violations)
    return Subscription(worker_id, queues, lease.total_seconds(), wait.total_seconds())
