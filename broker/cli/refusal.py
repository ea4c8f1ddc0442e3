"""What a gRPC error says to a person.

Owns the wording of every failed call. Must not call anything.
"""

from collections.abc import Sequence
from typing import IO, Any, TypeVar, cast

import click
import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status

from broker.cli.output import one_line
from broker.errors import Violation

Detail = TypeVar("Detail", bound=Message)

_HINTS = {
    "PLAYBOOK_NOT_FOUND": ": `reprise playbooks` lists those that are registered",
    "EXECUTION_NOT_FOUND": ": `reprise executions` lists those that there are; a job's id goes to `reprise job` or `reprise events --job`",
    "JOB_NOT_FOUND": ": `reprise jobs` lists those that there are",
}


class CallFailed(click.ClickException):
    """A call that the broker refused or did not answer: its lines for the user, exit code 1.

    `faults` are the bad fields that the broker named; empty if the error is another one. `reason` is the broker's word for the error,
    if it gave one.
    """

    def __init__(self, lines: Sequence[str], faults: Sequence[Violation] = (), reason: str = "") -> None:
        super().__init__("\n".join(lines))
        self.faults = faults
        self.reason = reason

    def show(self, file: IO[Any] | None = None) -> None:
        """Writes the lines as they are, without a word before them: a bad field's path comes first."""
        click.echo(self.message, file=file, err=file is None)


def failure_of(error: grpc.RpcError, address: str) -> CallFailed:
    """What to tell the user of the broker at `address` about this error."""
    return CallFailed(describe(error, address), violations(error), _reason(error))


def describe(error: grpc.RpcError, address: str) -> list[str]:
    """The lines to show: one for the error, or one for each bad field ("jobs[0].kind: is missing")."""
    faults = violations(error)
    if faults:
        return [
            f"{fault.field}: {fault.description}" if fault.field else fault.description for fault in faults
        ]
    details = one_line(error.details() or "")
    pause = retry_delay(error)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if pause is None:
            return [f"no broker answers at {address}: start one with `reprise dev`"]
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.RESOURCE_EXHAUSTED if pause is not None:
            return [f"{details} (the broker asks to try again in {pause:g} s)"]
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return [f"no answer in time from {address}"]
        case grpc.StatusCode.UNIMPLEMENTED:
            return [f"the broker at {address} does not offer this: {details}"]
        case grpc.StatusCode.NOT_FOUND:
            return [(details or "not found") + _HINTS.get(_reason(error), "")]
        case grpc.StatusCode.INTERNAL:
            return [f"the broker at {address} failed: {details or 'see its log'}"]
        case code:
            return [details or code.name.lower().replace("_", " ")]


def violations(error: grpc.RpcError) -> list[Violation]:
    """The bad fields that the broker named; empty if the error is another one."""
    bad_request = _detail(error, BadRequest)
    found = bad_request.field_violations if bad_request is not None else ()
    return [Violation(one_line(fault.field), one_line(fault.description), fault.reason) for fault in found]


def retry_delay(error: grpc.RpcError) -> float | None:
    """Seconds after which the broker asks for the same call again; None if it does not ask."""
    retry_info = _detail(error, RetryInfo)
    return None if retry_info is None else retry_info.retry_delay.ToTimedelta().total_seconds()


def _reason(error: grpc.RpcError) -> str:
    info = _detail(error, ErrorInfo)
    return info.reason if info is not None else ""


def _detail(error: grpc.RpcError, wanted: type[Detail]) -> Detail | None:
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:
        # Details that contradict the status: something other than a broker answered.
        return None
    for packed in status.details if status is not None else ():
        found = wanted()
        if packed.Unpack(found):
            return found
    return None
