"""Turns errors into gRPC statuses: one table, and the two decorators that every servicer's methods wear.

Each status carries google.rpc.ErrorInfo (domain "reprise", a stable reason), for bad input BadRequest with
the path of every bad field, for overload and outage RetryInfo. What nobody foresaw is INTERNAL: its traceback
goes to our log, nothing to the caller.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from functools import wraps
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from broker.errors import (
    AlreadyExists,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    NotSupportedYet,
    RepriseError,
    Unavailable,
    Violation,
    WrongState,
)

DOMAIN = "reprise"
# A client takes 8 KiB of metadata by default, and the status travels twice: as text and as details.
_MAX_MESSAGE_CHARACTERS = 300
_MAX_VIOLATIONS_BYTES = 4 * 1024
_MAX_FIELD_CHARACTERS = 200
_MAX_DESCRIPTION_CHARACTERS = 1000

CODES: Mapping[type[RepriseError], int] = {
    InvalidArgument: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    AlreadyExists: code_pb2.ALREADY_EXISTS,
    WrongState: code_pb2.FAILED_PRECONDITION,
    LimitExceeded: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
    NotSupportedYet: code_pb2.UNIMPLEMENTED,
    RepriseError: code_pb2.INTERNAL,
}

_log = logging.getLogger(__name__)
_Self = TypeVar("_Self")
_Answer = TypeVar("_Answer")


def status_of(error: RepriseError) -> status_pb2.Status:
    """The status that a caller gets for `error`, small enough for any client's metadata limit."""
    details: list[message.Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidArgument):
        details.append(_bad_request(error.violations))
    if isinstance(error, LimitExceeded | Unavailable):
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry_info)
    return status_pb2.Status(
        code=_code_of(type(error)),
        message=_shortened(str(error), _MAX_MESSAGE_CHARACTERS),
        details=[_packed(detail) for detail in details],
    )


def reports_errors(
    method: Callable[[_Self, Any, Any], Coroutine[Any, Any, _Answer]],
) -> Callable[[_Self, Any, Any], Coroutine[Any, Any, _Answer]]:
    """A servicer's coroutine method `(self, request or requests, context)` whose errors become statuses."""

    @wraps(method)
    async def reporting(self: _Self, request: Any, context: Any) -> _Answer:
        try:
            return await method(self, request, context)
        except Exception as error:
            await _abort(context, error)

    return reporting


def reports_stream_errors(
    method: Callable[[_Self, Any, Any], AsyncGenerator[_Answer, None]],
) -> Callable[[_Self, Any, Any], AsyncGenerator[_Answer, None]]:
    """Like `reports_errors`, for a method that gives an asynchronous generator of responses."""

    @wraps(method)
    async def reporting(self: _Self, request: Any, context: Any) -> AsyncGenerator[_Answer, None]:
        try:
            async with aclosing(method(self, request, context)) as answers:
                async for answer in answers:
                    yield answer
        except Exception as error:
            await _abort(context, error)

    return reporting


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """Ends the call with the status of `error`, to be called while it is handled; a call that was aborted stays so."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, RepriseError):
        _log.exception("call failed")
        await context.abort(grpc.StatusCode.INTERNAL, "internal error; the broker's log says more")
    if _code_of(type(error)) == code_pb2.INTERNAL:
        _log.exception("call failed")
    status = rpc_status.to_status(status_of(error))
    await context.abort_with_status(status)  # type: ignore[attr-defined] # grpc-stubs lacks it
    raise AssertionError("an aborted call goes no further")


def _code_of(error: type[RepriseError]) -> int:
    return next(CODES[ancestor] for ancestor in error.__mro__ if ancestor in CODES)


def _bad_request(violations: Iterable[Violation]) -> error_details_pb2.BadRequest:
    """As many violations as fit; where some do not, the last one says how many."""
    bad_request = error_details_pb2.BadRequest()
    left_out = 0
    for violation in violations:
        bad_request.field_violations.add(
            field=_shortened(violation.field, _MAX_FIELD_CHARACTERS),
            description=_shortened(violation.description, _MAX_DESCRIPTION_CHARACTERS),
            reason=violation.reason,
        )
        if bad_request.ByteSize() > _MAX_VIOLATIONS_BYTES:
            del bad_request.field_violations[-1]
            left_out += 1
    if left_out:
        bad_request.field_violations.add(description=f"and {left_out} more", reason="MORE")
    return bad_request


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
