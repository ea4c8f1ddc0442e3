"""An exception becomes the facts of a failure."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from worker import json_result
from worker.failure import MESSAGE_BYTES, STACK_TRACE_BYTES, JobFailed, failure_of
from worker.json_result import encode_result


class DownstreamError(Exception):
    status_code = 503
    retry_after = 2.5


def test_exception_brings_class_text_and_trace() -> None:
    try:
        raise ValueError("bad input")
    except ValueError as error:
        failure = failure_of(error)
    assert (failure.type, failure.message) == ("ValueError", "bad input")
    assert 'raise ValueError("bad input")' in failure.stack_trace


def test_frames_of_the_worker_below_the_handlers_line_stay_in_its_trace() -> None:
    try:
        encode_result("\0")
    except ValueError as error:
        failure = failure_of(error)
    assert [f'File "{name}"' in failure.stack_trace for name in (__file__, json_result.__file__)] == [
        True
    ] * 2


def test_trace_of_a_fault_of_our_own_is_whole() -> None:
    with pytest.raises(ValueError, match="NUL") as caught:
        encode_result("\0")
    failure = failure_of(caught.value.with_traceback(caught.tb.tb_next))
    assert f'File "{json_result.__file__}"' in failure.stack_trace


def test_status_code_and_retry_after_are_read_from_the_exception() -> None:
    failure = failure_of(DownstreamError("busy"))
    assert (failure.status_code, failure.retry_after) == (503, timedelta(seconds=2.5))


def test_status_code_is_read_from_an_http_librarys_response() -> None:
    error = RuntimeError("answered")
    error.response = SimpleNamespace(status_code=429)  # type: ignore[attr-defined]
    assert failure_of(error).status_code == 429


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "soon", True, None])
def test_retry_after_that_is_no_duration_is_left_out(value: object) -> None:
    error = RuntimeError()
    error.retry_after = value  # type: ignore[attr-defined]
    assert failure_of(error).retry_after is None


def test_empty_message_becomes_the_type() -> None:
    assert failure_of(KeyError()).message == "KeyError"


def test_exception_that_cannot_be_printed_is_still_a_failure() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert failure_of(SilentError()).message == "SilentError"


def test_job_failed_brings_its_own_facts() -> None:
    failure = failure_of(
        JobFailed("no", type="mail.refused", status_code=550, retry_after=60, result={"a": 1})
    )
    assert failure.type == "mail.refused"
    assert failure.status_code == 550
    assert failure.retry_after == timedelta(seconds=60)
    assert failure.result_json == '{"a":1}'


def test_long_texts_are_cut_to_what_the_broker_keeps() -> None:
    failure = failure_of(JobFailed("ü" * 10_000, stack_trace="first" + "x" * 40_000 + "last"))
    assert len(failure.message.encode()) <= MESSAGE_BYTES
    assert len(failure.stack_trace) <= STACK_TRACE_BYTES
    assert failure.stack_trace.endswith("last")
