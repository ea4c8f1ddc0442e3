"""The http step against a real server on the loopback."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from worker.credentials import Credentials
from worker.executors.http_step import MOST_BODY_BYTES, HttpStep
from worker.failure import JobFailed
from worker.job import Job

CREDENTIALS = Credentials(
    {
        "bearer": {"type": "bearer", "token": "tok-1"},
        "basic": {"type": "basic", "username": "ann", "password": "hunter22"},
        "key": {"type": "api_key", "header": "X-Token", "key": "key-1"},
        "database": {"type": "postgres", "password": "hunter22"},
    }
)


class Downstream(BaseHTTPRequestHandler):
    """`/echo` tells what it got; `/status/N` answers N; the rest is in `_answers`."""

    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        address = urlsplit(self.path)
        match address.path.strip("/").split("/"):
            case ["echo"]:
                seen = {
                    "method": self.command,
                    "headers": {key.lower(): value for key, value in self.headers.items()},
                    "query": dict(parse_qsl(address.query)),
                    "body": body,
                }
                self._answer(200, json.dumps(seen).encode())
            case ["status", code]:
                self._answer(int(code), b'{"error": "busy"}', **{"Retry-After": "7", "Location": "/echo"})
            case ["text"]:
                self._answer(200, b"plain \0 text", content_type="text/plain")
            case ["broken-json"]:
                self._answer(200, b"{not json")
            case ["large", size]:
                self._answer(200, b"x" * int(size), content_type="text/plain")
            case ["silent"]:
                self.server.silence.wait(30)  # type: ignore[attr-defined]
            case ["garbage"]:
                self.wfile.write(b"what is this\r\n\r\n")
                self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _answer(self, code: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: pytest shows what matters."""


@pytest.fixture(scope="module")
def downstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Downstream)
    server.silence = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.silence.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


async def request(url: str, **given: Any) -> Any:
    return await HttpStep(CREDENTIALS).execute(Job(1, "default", "http", 1, 1, {"endpoint": url, **given}))


async def failure_of(url: str, **given: Any) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await request(url, **given)
    return caught.value


async def test_answer_is_an_envelope_with_the_parsed_body(downstream: str) -> None:
    answer = await request(f"{downstream}/echo", params={"q": "a b"}, headers={"X-One": 1})
    assert set(answer) == {"status_code", "headers", "url", "elapsed", "data"}
    assert (answer["status_code"], answer["headers"]["content-type"]) == (200, "application/json")
    assert answer["data"]["method"] == "GET"
    assert answer["data"]["query"] == {"q": "a b"}
    assert answer["data"]["headers"]["x-one"] == "1"


@pytest.mark.parametrize(
    ("given", "query", "body"),
    [
        ({"method": "post", "payload": {"a": 1}}, {}, '{"a":1}'),
        ({"method": "post", "payload": [1]}, {}, "[1]"),
        ({"method": "PUT", "payload": "text"}, {}, "text"),
        ({"method": "POST", "data": {"a": 1}}, {}, '{"a":1}'),
        ({"method": "GET", "data": {"a": 1}}, {"a": "1"}, ""),
        ({"method": "POST", "data": {"query": {"q": 1}, "body": {"b": 2}}}, {"q": "1"}, '{"b":2}'),
        ({"method": "POST", "params": {"p": 0}, "data": {"query": {"q": 1}}}, {"p": "0", "q": "1"}, ""),
        (
            {
                "method": "POST",
                "payload": {"a": "x y"},
                "headers": {"content-type": "application/x-www-form-urlencoded"},
            },
            {},
            "a=x+y",
        ),
    ],
)
async def test_data_goes_where_the_method_wants_it(
    downstream: str, given: dict[str, Any], query: dict[str, str], body: str
) -> None:
    seen = (await request(f"{downstream}/echo", **given))["data"]
    assert (seen["query"], seen["body"].replace(" ", ""), seen["method"]) == (
        query,
        body,
        given["method"].upper(),
    )


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("bearer", "authorization", "Bearer tok-1"),
        ({"type": "basic", "credential": "basic"}, "authorization", "Basic YW5uOmh1bnRlcjIy"),
        ("key", "x-token", "key-1"),
    ],
)
async def test_credential_becomes_a_header(downstream: str, auth: Any, header: str, value: str) -> None:
    assert (await request(f"{downstream}/echo", auth=auth))["data"]["headers"][header] == value


@pytest.mark.parametrize(
    ("auth", "failure_type"), [("nope", "credential_not_found"), ("database", "input_invalid")]
)
async def test_credential_that_does_not_fit_fails_the_attempt(
    downstream: str, auth: str, failure_type: str
) -> None:
    assert (await failure_of(f"{downstream}/echo", auth=auth)).type == failure_type


@pytest.mark.parametrize("code", [302, 404, 429, 503])
async def test_answer_that_is_not_2xx_is_a_failure_with_every_fact(downstream: str, code: int) -> None:
    failure = await failure_of(f"{downstream}/status/{code}")
    assert (failure.type, failure.status_code) == (f"http.{code}", code)
    assert str(failure).startswith(f"{code} ")
    assert failure.retry_after is not None
    assert failure.result["status_code"] == code
    assert failure.result["data"] == {"error": "busy"}


async def test_text_is_kept_as_text_that_postgresql_can_hold(downstream: str) -> None:
    assert (await request(f"{downstream}/text"))["data"] == "plain \N{REPLACEMENT CHARACTER} text"
    assert (await request(f"{downstream}/broken-json"))["data"] == "{not json"


async def test_body_is_read_up_to_a_bound(downstream: str) -> None:
    whole = await request(f"{downstream}/large/{MOST_BODY_BYTES}")
    assert len(whole["data"]) == MOST_BODY_BYTES
    assert (await failure_of(f"{downstream}/large/{MOST_BODY_BYTES + 1}")).type == "http.body_too_large"


async def test_transport_failures_have_types(downstream: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        refused = await failure_of(f"http://ada:secret@{address}/")
        assert (refused.type, str(refused)) == ("http.connect", f"GET {address}: Connection refused")
    assert (await failure_of(f"{downstream}/garbage")).type == "http.protocol"
    assert (await failure_of("ftp://127.0.0.1/")).type == "http.invalid_url"


@pytest.mark.parametrize("limit", [0.2, "200ms"])
async def test_timeout_counts_for_the_whole_request(downstream: str, limit: Any) -> None:
    failure = await failure_of(f"{downstream}/silent", timeout=limit)
    assert (failure.type, str(failure)) == (
        "http.timeout",
        f"GET {downstream.removeprefix('http://')}: no answer within 0.2 s",
    )


@pytest.mark.parametrize("given", [{"timeout": "soon"}, {"timeout": 0}, {"headers": [1]}, {"endpoint": None}])
async def test_bad_input_is_refused(downstream: str, given: dict[str, Any]) -> None:
    job = Job(1, "default", "http", 1, 1, {"endpoint": downstream, **given})
    with pytest.raises(JobFailed) as caught:
        await HttpStep(CREDENTIALS).execute(job)
    assert caught.value.type == "input_invalid"


async def test_address_with_a_password_is_not_shown(downstream: str) -> None:
    answer = await request(downstream.replace("://", "://ann:hunter22@") + "/echo")
    assert "hunter22" not in answer["url"]
