"""What a job's input says about an HTTP request.

Pure: sends nothing, knows no credential but the headers it is given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.credentials import Credential, basic_token
from worker.failure import INPUT_INVALID, JobFailed

TIMEOUT_SECONDS = 30.0
_BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Request:
    """One request; at most one of `json`, `form` and `text` is its body."""

    method: str
    url: str
    headers: Mapping[str, str]
    params: Mapping[str, Any]
    timeout_seconds: float
    json: Any = None
    form: Mapping[str, Any] | None = None
    text: str | None = None


def request_of(given: Mapping[str, Any], auth_headers: Mapping[str, str]) -> Request:
    """The request that the input describes. Raises JobFailed "input_invalid".

    `params` is the query, `payload` the body. `data` with `query` or `body` in it says both; other `data` is
    the query
    of a method without a body, else the body.
    """
    url = given.get("endpoint") or given.get("url")
    if not isinstance(url, str):
        raise JobFailed("input has no text `endpoint` or `url`, the address to call", type=INPUT_INVALID)
    method = str(given.get("method") or "GET").upper()
    headers = {str(key): str(value) for key, value in _mapping(given, "headers").items()}
    params, body = _query_and_body(given, method)
    return Request(
        method=method,
        url=url,
        headers={**headers, **auth_headers},
        params=params,
        timeout_seconds=_seconds_of(given.get("timeout")),
        **_body_fields(body, headers),
    )


def headers_of(credential: Credential) -> dict[str, str]:
    """The header that this credential is: bearer, basic, api_key (in `header`, default X-API-Key)."""
    match credential.fields.get("type", "bearer"):
        case "bearer":
            return {"Authorization": f"Bearer {credential.require('token', 'access_token')}"}
        case "basic":
            credential.require("password")
            return {"Authorization": f"Basic {basic_token(credential)}"}
        case "api_key" | "header":
            return {
                str(credential.fields.get("header", "X-API-Key")): credential.require(
                    "key", "value", "api_key"
                )
            }
        case other:
            raise JobFailed(
                f"credential {credential.name!r} is of type {other!r}, not bearer, basic or api_key",
                type=INPUT_INVALID,
            )


def _query_and_body(given: Mapping[str, Any], method: str) -> tuple[dict[str, Any], Any]:
    params, body = dict(_mapping(given, "params")), given.get("payload")
    data = given.get("data")
    if isinstance(data, dict) and data.keys() & {"query", "body"}:
        params.update(_mapping(data, "query"))
        body = data.get("body") if body is None else body
    elif data is not None and method in _BODILESS:
        params.update(_mapping(given, "data"))
    elif data and body is None:
        body = data
    return params, body


def _body_fields(body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
    content_type = next((value for key, value in headers.items() if key.lower() == "content-type"), "")
    match body:
        case None:
            return {}
        case str():
            return {"text": body}
        case dict() if content_type.startswith("application/x-www-form-urlencoded"):
            return {"form": body}
        case _:
            return {"json": body}


def _mapping(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise JobFailed(f"{key} is not a mapping", type=INPUT_INVALID)
    return value


def _seconds_of(value: Any) -> float:
    """A timeout in seconds: a number, or a text with its unit ("500ms", "2m")."""
    if value is None:
        return TIMEOUT_SECONDS
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", str(value).strip())
    if isinstance(value, bool) or not found or float(found[1]) == 0:
        raise JobFailed(f"timeout {value!r} is no duration", type=INPUT_INVALID)
    return float(found[1]) * _UNITS[found[2]]
