"""Step type `http`: one request.

Any answer that is not 2xx fails the attempt, with the answer as its result.
"""

import asyncio
import json
import os
import socket
import ssl
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx

from worker.credentials import Credentials
from worker.executors.http_request import Request, headers_of, request_of
from worker.executors.retry_after import parse_retry_after
from worker.failure import JobFailed
from worker.job import Job

MOST_BODY_BYTES = 512 * 1024  # half of what a result may have
# The first class that fits names the failure.
_TRANSPORT_ERRORS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.TimeoutException, "http.timeout"),
    (TimeoutError, "http.timeout"),
    (httpx.ConnectError, "http.connect"),
    (httpx.ProxyError, "http.proxy"),
    (httpx.UnsupportedProtocol, "http.invalid_url"),
    (httpx.InvalidURL, "http.invalid_url"),
    (httpx.ProtocolError, "http.protocol"),
    (httpx.NetworkError, "http.network"),
    (httpx.DecodingError, "http.decoding"),
)


class HttpStep:
    """Input: `method`, `endpoint` (or `url`), `headers`, `params`, `payload` or `data`, `timeout` (30 s),
    `auth`.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def execute(self, job: Job) -> Any:
        """`{"status_code", "headers", "url", "elapsed" (seconds), "data"}`; `data` is JSON where the answer
        is, else text.

        Raises JobFailed "http.<status>" with the same as its result, or "http.timeout", "http.connect" and
        the like.
        """
        auth = job.input.get("auth")
        request = request_of(job.input, headers_of(self._credentials.find(auth)) if auth is not None else {})
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await _answer_to(request)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise _transport_failure(request, error) from error


async def _answer_to(request: Request) -> dict[str, Any]:
    started_at = time.monotonic()
    # A client per attempt: a shared one would carry cookies from one job to the next.
    async with (
        httpx.AsyncClient(verify=_tls(), timeout=request.timeout_seconds, follow_redirects=False) as client,
        client.stream(
            request.method,
            request.url,
            headers=dict(request.headers),
            params=dict(request.params) or None,
            json=request.json,
            data=dict(request.form) if request.form is not None else None,
            content=request.text,
        ) as response,
    ):
        body, is_whole = await _body_of(response)
    answer = {
        "status_code": response.status_code,
        "headers": dict(response.headers),
        "url": str(response.url.copy_with(username=None, password=None)),
        "elapsed": round(time.monotonic() - started_at, 6),
        "data": _data_of(body, response) if is_whole else _text_of(body, response),
    }
    if not response.is_success:
        raise _refused(response, answer)
    if not is_whole:
        raise JobFailed(f"answer is larger than {MOST_BODY_BYTES} bytes", type="http.body_too_large")
    return answer


async def _body_of(response: httpx.Response) -> tuple[bytes, bool]:
    """The body's beginning, and whether that is all of it."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            return body[:MOST_BODY_BYTES], False
    return body, True


def _data_of(body: bytes, response: httpx.Response) -> Any:
    if "json" in response.headers.get("content-type", ""):
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            pass  # it says JSON and is not: its text is still worth having
    return _text_of(body, response)


def _text_of(body: bytes, response: httpx.Response) -> str:
    try:
        text = body.decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:  # a charset that nobody knows
        text = body.decode("utf-8", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _refused(response: httpx.Response, answer: dict[str, Any]) -> JobFailed:
    host = response.url.host
    return JobFailed(
        f"{response.status_code} {response.reason_phrase} from {host}".replace("  ", " "),
        type=f"http.{response.status_code}",
        status_code=response.status_code,
        retry_after=parse_retry_after(
            response.headers.get("retry-after"), response.headers.get("date"), datetime.now(UTC)
        ),
        result=answer,
        stack_trace="",
    )


def _transport_failure(request: Request, error: Exception) -> JobFailed:
    failure_type = next(
        (name for kind, name in _TRANSPORT_ERRORS if isinstance(error, kind)), "http.transport"
    )
    is_timeout = failure_type == "http.timeout"
    text = f"no answer within {request.timeout_seconds:g} s" if is_timeout else _reason_of(error)
    return JobFailed(f"{request.method}{_place_of(request)}: {text}", type=failure_type, stack_trace="")


def _place_of(request: Request) -> str:
    """Host and port, after a blank, where the address has them; never user and password."""
    try:
        place = httpx.URL(request.url).netloc.decode()
    except httpx.InvalidURL:
        return ""
    return f" {place}" if place else ""


def _reason_of(error: BaseException) -> str:
    """What the operating system said, where it is behind the error: "all attempts failed" says nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (socket.gaierror, ssl.SSLError)):  # with numbers of their own
            return str(cause.strerror or cause)
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = first or cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


@cache
def _tls() -> ssl.SSLContext:
    """Loading the trusted certificates takes tens of milliseconds: once for all attempts."""
    return httpx.create_ssl_context()
