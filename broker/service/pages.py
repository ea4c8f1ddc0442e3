"""Pages of lists: their size, and tokens that say where the next one starts.

A token is opaque to clients and bound to the request that it came from: with another filter it is refused.
"""

import base64
import hashlib
import json
from typing import Any

from google.protobuf.message import Message

from broker.errors import Violation

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
# No message of the broker exceeds 3 MiB; what is left is room for the fields around a page's items.
MAX_PAGE_BYTES = 3 * 1024 * 1024 - 16 * 1024
_DIGEST_BYTES = 9
# Fields that may change from one page to the next.
_UNBOUND = ("page_size", "page_token", "view")
_NOT_OF_THIS_LIST = Violation("page_token", "is not a token of this list with this filter")


def page_size_of(request: Any, violations: list[Violation]) -> int:
    """How many items at most: 100 where the request does not say, 1000 where it says more. A violation more below 0."""
    if request.page_size < 0:
        violations.append(
            Violation("page_size", f"must be 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
        )
    return min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def page_token(request: Message, position: int | str | None) -> str:
    """The token of the page after `position`, which the service understands; empty if there is none."""
    if position is None:
        return ""
    return base64.urlsafe_b64encode(_digest(request) + json.dumps(position).encode()).decode()


def int_position_of(request: Any, violations: list[Violation]) -> int | None:
    """Where a list ordered by ids goes on, None at its start. A violation more for a token of another request."""
    try:
        position = _position_of(request)
    except ValueError:
        position = ""
    if position is None or (isinstance(position, int) and 0 <= position < 2**63):
        return position
    violations.append(_NOT_OF_THIS_LIST)
    return None


def text_position_of(request: Any, violations: list[Violation]) -> str | None:
    """Like `int_position_of`, of a list ordered by names."""
    try:
        position = _position_of(request)
    except ValueError:
        position = 0
    if position is None or (isinstance(position, str) and "\0" not in position):
        return position
    violations.append(_NOT_OF_THIS_LIST)
    return None


def fitting(messages: list[Any], max_bytes: int = MAX_PAGE_BYTES) -> int:
    """How many of `messages`, from the first on, fit in one response; at least one."""
    total = 0
    for count, message in enumerate(messages):
        total += message.ByteSize() + 8
        if total > max_bytes and count > 0:
            return count
    return len(messages)


def _position_of(request: Any) -> object:
    """What the request's token says, None without a token. Raises ValueError where it is no token of this list."""
    if not request.page_token:
        return None
    token = base64.b64decode(request.page_token, altchars=b"-_", validate=True)
    if token[:_DIGEST_BYTES] != _digest(request):
        raise ValueError("a token of another request")
    position: object = json.loads(token[_DIGEST_BYTES:])
    return position


def _digest(request: Message) -> bytes:
    bound = type(request)()
    bound.CopyFrom(request)
    for field in _UNBOUND:
        if field in bound.DESCRIPTOR.fields_by_name:
            bound.ClearField(field)
    name = bound.DESCRIPTOR.full_name.encode()
    return hashlib.blake2b(
        name + bound.SerializeToString(deterministic=True), digest_size=_DIGEST_BYTES
    ).digest()
