"""One open lease stream.

Owns the order of what is written to it: credits and acknowledgements are added up and sent by one task,
because gRPC allows one write at a time.

Decides nothing: who gets credits and what is done with a lease is the runner's.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc
from reprise.v1 import broker_service_pb2 as pb

from worker.lease import Delivery
from worker.wire import delivery_of

SILENCE_SECONDS = (
    35.0  # the broker gives a sign of life every 10 s: after three that did not come the stream is dead
)
MOST_ACKNOWLEDGED = 10_000  # in one message: 64 characters each

LeaseCall = grpc.aio.StreamStreamCall[pb.LeaseRequest, pb.LeaseResponse]


class LeaseStream:
    """Deliveries come by iteration, which ends when either side ends the call; an AioRpcError says that it
    broke, a TimeoutError that it fell silent.
    """

    def __init__(self, call: LeaseCall) -> None:
        self._call = call
        self._credits = 0
        self._received: list[str] = []
        self._has_more = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._is_cancelled = False

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        if self._writer:
            self._writer.cancel()
            await asyncio.wait([self._writer])

    def grant(self, credits: int) -> None:  # noqa: A002 - the contract's word
        """Lets the broker deliver so many leases more."""
        self._credits += credits
        self._has_more.set()

    def acknowledge(self, tokens: list[str]) -> None:
        """Tells the broker that these leases arrived; they survive this stream."""
        self._received.extend(tokens)
        self._has_more.set()

    def cancel(self) -> None:
        """Ends the stream: nothing is delivered any more, leases already received stay valid."""
        self._is_cancelled = True
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while isinstance(message := await self._read(), pb.LeaseResponse):
            yield delivery_of(message, time.monotonic())

    async def _read(self) -> object:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                return await self._call.read()
        except asyncio.CancelledError:
            # gRPC raises this for a call that we cancelled, too; only a cancelled task may pass it on.
            task = asyncio.current_task()
            if self._is_cancelled and task and not task.cancelling():
                return None
            raise

    async def _write_all(self) -> None:
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            while self._credits or self._received:
                message = pb.LeaseRequest(credits=self._credits, received=self._received[:MOST_ACKNOWLEDGED])
                self._credits = 0
                del self._received[:MOST_ACKNOWLEDGED]
                try:
                    await self._call.write(message)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the stream broke: the reader learns why
