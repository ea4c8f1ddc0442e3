"""Failures between protobuf, `broker.policy` and the events that keep them.

Nothing in a failure is a reason to refuse it.
"""

import json
from datetime import timedelta
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from reprise.v1 import job_pb2

from broker.json_text import JsonInvalid, check_json
from broker.lifecycle.judge import Reported
from broker.policy.decision import Failure
from broker.service.translate.instants import duration_message, is_duration, to_timedelta

# The sizes that job.proto gives.
MAX_MESSAGE_BYTES = 8 * 1024
MAX_TYPE_CHARACTERS = 128
MAX_RESULT_BYTES = 1024 * 1024
MAX_STACK_TRACE_BYTES = 32 * 1024
# Where an error's detail turns to the result; within a text its quotes would be escaped.
_RESULT = ',"result":'
_JSON_BLANKS = " \t\n\r"
_DECODER = json.JSONDecoder()
# Failures that were reported lately: a downstream that is dead fails thousands of jobs in the same few ways. With their messages some
# 6 MB at most (measured 2026-11). One that is not among them takes 2 us more than without.
_REMEMBERED_FAILURES = 1024
_REMEMBERED_BYTES = 1024


class FailureReader:
    """Reads failures; those that are alike once."""

    def __init__(self) -> None:
        self._remembered: dict[bytes, Reported] = {}

    def read(self, message: job_pb2.Failure) -> Reported:
        """What a worker reported, as job.proto says that it is kept."""
        serialized = message.SerializeToString()
        if (known := self._remembered.get(serialized)) is not None:
            return known
        read = read_failure(message)
        if len(serialized) <= _REMEMBERED_BYTES:
            if len(self._remembered) >= _REMEMBERED_FAILURES:
                self._remembered.clear()
            self._remembered[serialized] = read
        return read


def read_failure(message: job_pb2.Failure) -> Reported:
    """What a worker reported, as job.proto says that it is kept."""
    result_json: str | None = message.result_json or None
    left_out = None
    if result_json is not None:
        try:
            check_json(result_json, MAX_RESULT_BYTES)
        except JsonInvalid as error:
            result_json, left_out = None, str(error)
    failure_type = _cleaned(message.type)[:MAX_TYPE_CHARACTERS]
    failure = Failure(
        message=_cut(_cleaned(message.message), MAX_MESSAGE_BYTES) or failure_type,
        type=failure_type,
        status_code=message.status_code if message.HasField("status_code") else None,
        retry_after=_retry_after(message),
        result_json=result_json,
        stack_trace=_cut(_cleaned(message.stack_trace), MAX_STACK_TRACE_BYTES),
    )
    return Reported(failure, left_out)


def recorded_failure_message(detail: str) -> job_pb2.Failure:
    """The failure that an `action_error` event recorded, or the `job_dead` of a job that never ran; `detail` is its JSON."""
    # The result is the last but one member, and goes out as it came in: written anew its numbers could grow, or change.
    facts, has_result, rest = detail.partition(_RESULT)
    members: dict[str, Any] = orjson.loads(facts + "}" if has_result else detail)
    failure = job_pb2.Failure(
        message=members["error"],
        type=members["error_type"],
        status_code=members.get("status_code"),
        stack_trace=members.get("stack_trace", ""),
    )
    if "retry_after_seconds" in members:
        failure.retry_after.CopyFrom(duration_message(timedelta(seconds=members["retry_after_seconds"])))
    if not has_result:
        return failure
    start = len(rest) - len(rest.lstrip(_JSON_BLANKS))
    if not rest.startswith("null", start):
        _, end = _DECODER.raw_decode(rest, start)
        failure.result_json = rest[start:end]
    return failure


def _retry_after(message: job_pb2.Failure) -> timedelta | None:
    """When the downstream said to come again: the field, else its status's RetryInfo; never below zero."""
    if message.HasField("retry_after"):
        said = message.retry_after
    elif not message.status:
        return None
    else:
        said = _retry_info(message.status).retry_delay
        if not said.ByteSize():
            return None
    return max(to_timedelta(said), timedelta()) if is_duration(said) else None


def _retry_info(serialized: bytes) -> error_details_pb2.RetryInfo:
    """The RetryInfo in a serialized google.rpc.Status; empty where there is none or no status."""
    found = error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(serialized).details:
            if detail.Unpack(found):
                break
    except DecodeError:
        return error_details_pb2.RetryInfo()
    return found


def _cleaned(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _cut(text: str, max_bytes: int) -> str:
    """The first characters of `text` that fit in `max_bytes` of UTF-8."""
    if len(text) * 4 <= max_bytes:
        return text
    return text.encode()[:max_bytes].decode(errors="ignore")
