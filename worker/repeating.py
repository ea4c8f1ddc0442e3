"""Which calls are made again, and after how long.

Owns backoff and the reading of gRPC errors; makes no call of its own.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 10.0
_STATUS_DETAILS = "grpc-status-details-bin"

Answer = TypeVar("Answer")
Detail = TypeVar("Detail", bound=Message)


class Backoff:
    """Waits that double from 0.1 s up to 10 s, each taken at random from its upper half; starts anew after
    `reset`.
    """

    def __init__(self) -> None:
        self._bound = FIRST_WAIT_SECONDS

    def reset(self) -> None:
        """Makes the next wait the shortest again: something succeeded."""
        self._bound = FIRST_WAIT_SECONDS

    def next_wait(self, at_least: timedelta | None = None) -> float:
        """Seconds to wait now; not less than what the broker asked for."""
        wait = random.uniform(self._bound / 2, self._bound)  # noqa: S311 - spreads load, keeps no secret
        self._bound = min(self._bound * 2, LONGEST_WAIT_SECONDS)
        return max(wait, at_least.total_seconds() if at_least else 0.0)


def is_repeatable(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same call may be made again: the broker asks for it (RetryInfo), or the connection broke or
    fell silent.

    UNAVAILABLE without RetryInfo is gRPC's own word for a broken connection; DEADLINE_EXCEEDED is our own
    limit on a call.
    """
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return True
        case _:
            return retry_info_of(error) is not None


def retry_info_of(error: grpc.aio.AioRpcError) -> timedelta | None:
    """What the broker says about when to call again; None where it does not ask for that."""
    info = detail_of(error, RetryInfo())
    if info is None:
        return None
    delay: timedelta = info.retry_delay.ToTimedelta()
    return delay


def detail_of(error: grpc.aio.AioRpcError, empty: Detail) -> Detail | None:
    """The detail of `empty`'s type in the error's status, filled into `empty`; None where there is none."""
    # The stubs describe these pairs as objects with two attributes, which they are not.
    trailer = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailer:
        if key != _STATUS_DETAILS or not isinstance(value, bytes):
            continue
        try:
            details = Status.FromString(value).details
        except DecodeError:
            return None
        for detail in details:
            if detail.Unpack(empty):
                return empty
    return None


async def repeat_until_answered(
    call: Callable[[], Awaitable[Answer]], give_up_at: Callable[[], float]
) -> Answer:
    """The call's answer, however often it takes.

    Raises the last error once it may not be repeated, or when `give_up_at()` (monotonic seconds, asked anew
    each time)
    would pass before the next try.
    """
    backoff: Backoff | None = None
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            backoff = backoff or Backoff()
            wait = backoff.next_wait(retry_info_of(error))
            if not is_repeatable(error) or time.monotonic() + wait > give_up_at():
                raise
        await asyncio.sleep(wait)
