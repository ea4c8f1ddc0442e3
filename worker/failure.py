"""What went wrong in one attempt, as facts. Owns no verdict: the broker alone decides what happens next."""

import traceback
from dataclasses import dataclass
from datetime import timedelta
from math import isfinite
from os import sep
from typing import Any

from worker.json_result import ResultNotJson, encode_result

MESSAGE_BYTES = 8 * 1024  # what the broker keeps of each (job.proto, Failure)
STACK_TRACE_BYTES = 32 * 1024
RESULT_BYTES = 1024 * 1024
TYPE_CHARACTERS = 128

_OUR_FOLDER = __file__.rpartition(sep)[0]  # without `executors` and `child`, whose lines belong to the step

TIMEOUT = "timeout"
CANCELLED = "cancelled"
UNKNOWN_KIND = "unknown_kind"
INPUT_INVALID = "input_invalid"
RESULT_NOT_JSON = "result_not_json"
RESULT_TOO_LARGE = "result_too_large"
ASSERTION_FAILED = "assertion_failed"
CREDENTIAL_NOT_FOUND = "credential_not_found"


@dataclass(frozen=True, slots=True)
class Failure:
    """The facts of one failed attempt.

    `type` is stable, conditions match on it; `result_json` is what it returned all the same.
    """

    message: str
    type: str
    status_code: int | None = None
    retry_after: timedelta | None = None
    result_json: str | None = None
    stack_trace: str = ""


class JobFailed(Exception):
    """Raise it in a handler to fail the attempt with facts of your choice.

    `type` is the stable class of error that conditions match on; `status_code` an HTTP or other numeric
    status;
    `retry_after` (seconds or a timedelta) what the downstream said about when to come again; `result` any
    JSON value
    that conditions shall see as `result`.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "JobFailed",  # noqa: A002 - the contract's word
        status_code: int | None = None,
        retry_after: float | timedelta | None = None,
        result: Any = None,
        stack_trace: str | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.status_code = status_code
        self.retry_after = retry_after
        self.result = result
        self.stack_trace = stack_trace


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception stands for: its text, its class's name, and the facts that it carries as
    attributes.

    Reads `status_code` (also of `response`, as HTTP libraries have it) and `retry_after` in seconds or as a
    timedelta.
    """
    if isinstance(error, JobFailed):
        failure_type, stack_trace = error.type, error.stack_trace
    else:
        failure_type, stack_trace = type(error).__name__, None
    return Failure(
        message=cut(_text_of(error) or failure_type, MESSAGE_BYTES),
        type=failure_type[:TYPE_CHARACTERS],
        status_code=_status_code_of(error),
        retry_after=_retry_after_of(error),
        result_json=_result_of(error),
        stack_trace=cut_front(trace_of(error) if stack_trace is None else stack_trace, STACK_TRACE_BYTES),
    )


def cut(text: str, size: int) -> str:
    """The text's beginning, at most `size` bytes of UTF-8; what UTF-8 cannot hold is replaced."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def cut_front(text: str, size: int) -> str:
    """The text's end, at most `size` bytes of UTF-8: of a stack trace the last lines say most."""
    return text.encode("utf-8", "replace")[-size:].decode("utf-8", "ignore")


def trace_of(error: BaseException) -> str:
    """The error's stack trace, from the first line that is not of the worker's own way to a handler or an executor.

    All of it where there is no such line: then the fault is ours.
    """
    shown = error.__traceback__
    while shown and shown.tb_frame.f_code.co_filename.rpartition(sep)[0] == _OUR_FOLDER:
        shown = shown.tb_next
    return "".join(traceback.format_exception(type(error), error, shown or error.__traceback__))


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a __str__ of the user's may raise; its failure must still be reported
        return ""


def _status_code_of(error: BaseException) -> int | None:
    for owner in (error, getattr(error, "response", None)):
        code = getattr(owner, "status_code", None)
        if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 2**31:
            return code
    return None


def _retry_after_of(error: BaseException) -> timedelta | None:
    value = getattr(error, "retry_after", None)
    if isinstance(value, timedelta):
        return max(value, timedelta())
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
        return timedelta(seconds=min(max(value, 0), 10**9))
    return None


def _result_of(error: BaseException) -> str | None:
    if not isinstance(error, JobFailed) or error.result is None:
        return None
    try:
        text = encode_result(error.result)
    except ResultNotJson:
        return None
    return text if len(text.encode()) <= RESULT_BYTES else None
