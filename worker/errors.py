"""What a program that enqueues must tell apart, so that it needs no gRPC of its own.

    EnqueueError          no job is known to be enqueued; the text says why
      EnqueueRefused      the jobs are wrong, and stay so: `faults` has every bad field by its path; a ValueError, too
      KeyTaken            an idempotency key stands for another job
      BrokerUnavailable   no broker answered in time: the jobs may be enqueued or not

Must not decide what is repeated.
"""

from collections.abc import Mapping
from typing import Self

import grpc
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]

from worker.repeating import detail_of, is_repeatable


class EnqueueError(Exception):
    """The broker did not take the jobs."""


class EnqueueRefused(EnqueueError, ValueError):
    """The jobs are not as they must be; `faults` says what is wrong with each bad field ("jobs[0].kind").

    What cannot even be sent is refused here, before the broker has seen the rest.
    """

    def __init__(self, message: str, faults: Mapping[str, str]) -> None:
        super().__init__(message)
        self.faults = faults

    @classmethod
    def of(cls, faults: Mapping[str, str], otherwise: str = "") -> Self:
        """The refusal that tells all faults; `otherwise` is its text where there are none."""
        told = [f"{field}: {text}" if field else text for field, text in faults.items()]
        return cls("; ".join(told) or otherwise, faults)


class KeyTaken(EnqueueError):
    """An idempotency key stands for a job with another content."""


class BrokerUnavailable(EnqueueError):
    """No broker answered in time. With an idempotency_key of yours it is safe to enqueue the same again."""


def enqueue_error_of(error: grpc.aio.AioRpcError, broker: str, seconds: float) -> EnqueueError:
    """The error for a program whose Enqueue to `broker` (HOST:PORT) ended like this, tried for so many seconds."""
    details = error.details() or error.code().name
    if is_repeatable(error):
        return BrokerUnavailable(f"no answer from {broker} within {seconds:g} s: {details}")
    match error.code():
        case grpc.StatusCode.INVALID_ARGUMENT:
            found = detail_of(error, BadRequest())
            faults = {fault.field: fault.description for fault in found.field_violations} if found else {}
            return EnqueueRefused.of(faults, details)
        case grpc.StatusCode.ALREADY_EXISTS:
            return KeyTaken(details)
        case code:
            return EnqueueError(f"{broker} answered {code.name}: {details}")
