"""A peer that answers the command line over real gRPC: what it answers is written in each test, and it stores nothing."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from click.testing import Result
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from reprise.v1 import broker_service_pb2, playbook_service_pb2, queue_service_pb2

_FILES = (broker_service_pb2, playbook_service_pb2, queue_service_pb2, health_pb2)
_METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

Reprise = Callable[..., Result]
Answer: TypeAlias = "Message | Status | list[Message | Status]"


class Peer(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Answers each method with what the test put there, in turn, the last answer for ever; keeps what it was asked.

    A Status is an error; a list is a stream.
    """

    address = ""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self._answers: dict[str, list[Answer]] = {}

    def answers(self, method: str, *answers: Answer) -> None:
        """From now on `method` ("Enqueue") gives these."""
        self._answers[method] = list(answers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = _METHODS[handler_call_details.method]
        request_class = GetMessageClass(method.input_type)
        kind = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = self._stream if method.server_streaming else self._answer
        return kind(
            lambda request, context: behaviour(method.name, request, context),
            request_deserializer=request_class.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    def _next(self, method: str, request: Any) -> Any:
        self.asked.append(request)
        answers = self._answers[method]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        answer = self._next(method, request)
        if isinstance(answer, Status):
            context.abort_with_status(rpc_status.to_status(answer))
        return answer

    def _stream(self, method: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        answer = self._next(method, request)
        for item in answer if isinstance(answer, list) else [answer]:
            if isinstance(item, Status):
                context.abort_with_status(rpc_status.to_status(item))
            yield item


def refusal(code: int, message: str, *details: Message) -> Status:
    """An error with these details."""
    status = Status(code=code, message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def come_again(milliseconds: int = 1) -> RetryInfo:
    """What asks for the same call again."""
    return RetryInfo(retry_delay=Duration(nanos=milliseconds * 1_000_000))


def at(second: float) -> Timestamp:
    """So many seconds into a fixed day."""
    moment = Timestamp()
    moment.FromDatetime(datetime.fromtimestamp(1_800_000_000 + second, UTC))
    return moment
