"""Every error of the broker becomes one gRPC status, with the details that its caller acts on."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import grpc
import pytest
from google.protobuf import message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]

from broker import errors
from broker.errors import InvalidArgument, LimitExceeded, NotFound, RepriseError, Unavailable, Violation
from broker.service.status import CODES, reports_errors, reports_stream_errors, status_of

Detail = TypeVar("Detail", bound=message.Message)


class RecordingContext:
    """The one side of a call that the decorators use: what the call was ended with."""

    def __init__(self) -> None:
        self.ended_with: grpc.StatusCode | None = None
        self.message = ""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.ended_with, self.message = code, details
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details)


class Servicer:
    """Methods that end as the request, an exception, says; without one they answer."""

    @reports_errors
    async def unary(self, request: BaseException | None, context: Any) -> str:
        if request is not None:
            raise request
        return "answer"

    @reports_stream_errors
    async def stream(self, request: BaseException | None, context: Any) -> AsyncGenerator[str, None]:
        yield "first"
        if request is not None:
            raise request


def detail_of(status: status_pb2.Status, kind: type[Detail]) -> Detail | None:
    found = kind()
    return found if any(packed.Unpack(found) for packed in status.details) else None


def test_every_error_of_the_tree_is_in_the_table() -> None:
    tree = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, RepriseError)
    }

    assert tree == set(CODES)


@pytest.mark.parametrize("kind", [kind for kind in CODES if kind is not InvalidArgument])
def test_a_status_names_the_domain_and_the_reason_of_its_error(kind: type[RepriseError]) -> None:
    status = status_of(kind("job 42: something"))

    assert (status.code, status.message) == (CODES[kind], "job 42: something")
    assert detail_of(status, error_details_pb2.ErrorInfo) == error_details_pb2.ErrorInfo(
        reason=kind.reason, domain="reprise"
    )


def test_bad_input_names_every_field() -> None:
    status = status_of(
        InvalidArgument(Violation("jobs[0].kind", "is missing"), Violation("jobs[1].queue", "is long"))
    )

    bad_request = detail_of(status, error_details_pb2.BadRequest)
    assert bad_request is not None
    assert [(violation.field, violation.description) for violation in bad_request.field_violations] == [
        ("jobs[0].kind", "is missing"),
        ("jobs[1].queue", "is long"),
    ]


def test_a_field_whose_turn_has_not_come_gives_the_call_that_reason() -> None:
    status = status_of(InvalidArgument(Violation("retry.rules", "is not supported yet", "NOT_SUPPORTED_YET")))

    info = detail_of(status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert (status.code, info.reason) == (code_pb2.INVALID_ARGUMENT, "NOT_SUPPORTED_YET")


@pytest.mark.parametrize("kind", [LimitExceeded, Unavailable])
def test_overload_and_outage_say_when_to_repeat(kind: type[LimitExceeded] | type[Unavailable]) -> None:
    status = status_of(kind("away", timedelta(seconds=2.5)))

    retry_info = detail_of(status, error_details_pb2.RetryInfo)
    assert retry_info is not None
    assert retry_info.retry_delay.ToTimedelta() == timedelta(seconds=2.5)


def test_a_status_fits_the_metadata_limit_of_any_client() -> None:
    violations = [Violation(f"jobs[{index}].input_json", "ä" * 5000) for index in range(1000)]

    status = status_of(InvalidArgument(*violations))

    bad_request = detail_of(status, error_details_pb2.BadRequest)
    assert bad_request is not None
    named = len(bad_request.field_violations) - 1
    assert named >= 1
    assert bad_request.field_violations[-1].description == f"and {1000 - named} more"
    percent_encoded = 3 * len(status.message.encode())
    assert status.ByteSize() + percent_encoded < 8 * 1024


async def test_an_error_ends_the_call_with_its_status() -> None:
    context = RecordingContext()

    with pytest.raises(grpc.aio.AbortError):
        await Servicer().unary(NotFound("job 42: not found"), context)

    assert (context.ended_with, context.message) == (grpc.StatusCode.NOT_FOUND, "job 42: not found")


async def test_an_error_after_the_first_answer_ends_the_stream_with_its_status() -> None:
    context = RecordingContext()
    answers = Servicer().stream(NotFound("execution 7: not found"), context)

    assert await anext(answers) == "first"
    with pytest.raises(grpc.aio.AbortError):
        await anext(answers)

    assert context.ended_with is grpc.StatusCode.NOT_FOUND


async def test_an_unexpected_error_goes_to_the_log_and_not_to_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = RecordingContext()

    with pytest.raises(grpc.aio.AbortError):
        await Servicer().unary(KeyError("secret"), context)

    assert context.ended_with is grpc.StatusCode.INTERNAL
    assert "secret" not in context.message
    assert "KeyError: 'secret'" in caplog.text


async def test_a_cancelled_call_stays_cancelled() -> None:
    context = RecordingContext()

    with pytest.raises(asyncio.CancelledError):
        await Servicer().unary(asyncio.CancelledError(), context)

    assert context.ended_with is None
