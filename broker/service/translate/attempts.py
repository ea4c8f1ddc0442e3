"""What workers report of their leases, as values: results, checkpoints, failures. Each item of a call stands or falls alone."""

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from reprise.v1 import broker_service_pb2 as pb

from broker.json_text import JsonInvalid, check_json
from broker.lifecycle.complete import Result
from broker.lifecycle.fail import FailedResult
from broker.lifecycle.tokens import LeaseRef, TokenCodec
from broker.service.translate.failures import FailureReader
from broker.service.translate.json_values import value_json

_MAX_RESULT_BYTES = 1024 * 1024
_MAX_CHECKPOINT_BYTES = 64 * 1024

Message = TypeVar("Message", pb.Completion, pb.FailedAttempt, pb.Extension)
Item = TypeVar("Item")


class Read(NamedTuple, Generic[Item]):
    """The items of a call by their index; `errors` says what is wrong with those that cannot be read. The others name no lease."""

    items: dict[int, Item]
    errors: dict[int, str]


class Extended(NamedTuple):
    """A lease to be prolonged; `checkpoint` is JSON text, None keeps the old one."""

    lease: LeaseRef
    checkpoint: str | None


def read_completions(codec: TokenCodec, completions: Iterable[pb.Completion]) -> Read[Result]:
    """Results as JSON text."""
    return _read_all(
        codec, completions, _result, lambda index, item: f"completions[{index}].{item.WhichOneof('output')}"
    )


def read_failed_attempts(
    codec: TokenCodec, failures: FailureReader, attempts: Iterable[pb.FailedAttempt]
) -> Read[FailedResult]:
    """Facts of failures, cleaned and cut to their bounds; there are no errors."""

    def read(lease: LeaseRef, attempt: pb.FailedAttempt) -> FailedResult:
        return FailedResult(lease, failures.read(attempt.failure))

    return _read_all(codec, attempts, read, lambda index, _: f"attempts[{index}]")


def read_extensions(codec: TokenCodec, extensions: Iterable[pb.Extension]) -> Read[Extended]:
    """Leases with what their attempts want to keep."""

    def read(lease: LeaseRef, extension: pb.Extension) -> Extended:
        return Extended(lease, _checkpoint(extension))

    return _read_all(
        codec, extensions, read, lambda index, item: f"extensions[{index}].{item.WhichOneof('saved')}"
    )


def _read_all(
    codec: TokenCodec,
    messages: Iterable[Message],
    read: Callable[[LeaseRef, Message], Item],
    field: Callable[[int, Message], str],
) -> Read[Item]:
    items: dict[int, Item] = {}
    errors: dict[int, str] = {}
    for index, message in enumerate(messages):
        lease = codec.read(message.lease_token)
        if lease is None:
            continue
        try:
            items[index] = read(lease, message)
        except JsonInvalid as error:
            errors[index] = f"{field(index, message)}: {error}"
    return Read(items, errors)


def _result(lease: LeaseRef, completion: pb.Completion) -> Result:
    text = completion.result_json
    if text or completion.HasField("result_json"):
        check_json(text, _MAX_RESULT_BYTES)
    elif completion.HasField("result"):
        text = value_json(completion.result, _MAX_RESULT_BYTES)
    else:
        text = "null"
    return Result(lease, text)


def _checkpoint(extension: pb.Extension) -> str | None:
    match extension.WhichOneof("saved"):
        case "checkpoint_json":
            check_json(extension.checkpoint_json, _MAX_CHECKPOINT_BYTES)
            return extension.checkpoint_json
        case "checkpoint":
            return value_json(extension.checkpoint, _MAX_CHECKPOINT_BYTES)
        case _:
            return None
