"""JSON as text: what the broker accepts, checked before any shared statement sees it.

A text that PostgreSQL refuses would fail the statement for every call that shares it, so whatever it cannot hold is refused here:
NUL, lone surrogates, NaN, numbers out of its range, nesting beyond its stack. Must not keep what it parsed.
"""

import json
import math
from collections.abc import Iterable
from decimal import Decimal

import orjson

# PostgreSQL's parser recurses; far above what people write, far below what its stack bears.
MAX_DEPTH = 200
# Digits and exponent that `numeric` holds for sure.
_MAX_NUMBER_LENGTH = 1000
_MAX_EXPONENT = 1000
# A double that holds 2^53 may have been written as 2^53 + 1.
MAX_SAFE_INTEGER = 2**53 - 1


_NOT_PLAIN = object()
_NO_COUNT = -(2**40)
_BLANKS_BEFORE_COLON = (" :", "\n:", "\t:", "\r:")


class JsonInvalid(ValueError):
    """The text or value is no JSON that can be stored; the message says why."""


def check_json(text: str, max_bytes: int) -> object:
    """The value of a JSON text that can be stored, as Python's json gives it. Raises JsonInvalid; `max_bytes` counts UTF-8."""
    length = len(text)
    if length > max_bytes or (not text.isascii() and len(text.encode(errors="surrogatepass")) > max_bytes):
        raise JsonInvalid(f"larger than {max_bytes} bytes")
    plain = _plain_value(text)
    if plain is not _NOT_PLAIN:
        return plain
    try:
        value = _decoded(text)
    except JsonInvalid:
        raise
    except RecursionError as error:
        raise JsonInvalid(f"nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise JsonInvalid(f"no JSON: {error}") from error
    # Without an escape no character can be wrong: raw control characters are refused by the parser, raw surrogates by UTF-8.
    if "\\u" in text or (length > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH):
        _check_strings_and_depth(value)
    return value


def check_object(text: str, max_bytes: int) -> dict[str, object]:
    """Like `check_json`, and it must be an object."""
    value = check_json(text, max_bytes)
    if not isinstance(value, dict):
        raise JsonInvalid("must be a JSON object")
    return value


def write_json(value: object, max_bytes: int) -> str:
    """The text of a value made of JSON types, compact. Raises JsonInvalid where it cannot be stored."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError as error:
        raise JsonInvalid(f"nested deeper than {MAX_DEPTH}") from error
    except (TypeError, ValueError) as error:
        raise JsonInvalid(f"no JSON: {error}") from error
    _check_strings_and_depth(value)
    if len(text.encode(errors="surrogatepass")) > max_bytes:
        raise JsonInvalid(f"larger than {max_bytes} bytes")
    return text


def same_json(first: str, second: str) -> bool:
    """Whether two texts of checked JSON are one value: whatever the order of keys, 1.0 is 1, and true is not 1."""
    return _same(_EXACT_DECODER.decode(first), _EXACT_DECODER.decode(second))


def from_double(number: float) -> int | float:
    """The number that a double of google.protobuf.Value stands for: an integer where it is one.

    Raises JsonInvalid for NaN and infinity, and for integers beyond 2^53, which a double may have changed already.
    """
    if not math.isfinite(number):
        raise JsonInvalid(f"{number} is no JSON number")
    if not number.is_integer():
        return number
    if abs(number) > MAX_SAFE_INTEGER:
        raise JsonInvalid(
            "an integer beyond 2^53 loses digits here: use the field with JSON text instead (input_json, result_json)"
        )
    return int(number)


def _plain_value(text: str) -> object:
    """The value of a text that is plainly good, as most are; _NOT_PLAIN where that takes a closer look, or it is wrong.

    orjson takes a quarter of the time of Python's json, but lets pass what cannot be stored: a key that stands twice, an exponent out of
    range, a NUL that is escaped. A compact text that it writes again as it was has none of these, if `\\u` is not in it. Another may be
    plain too: where no backslash is, and no blank before a colon, `":` stands behind every key and nowhere else: as many as keys were read.
    """
    if "\\u" in text or (len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH):
        return _NOT_PLAIN
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _NOT_PLAIN
    if orjson.dumps(value) == text.encode():
        return value
    if "\\" in text or any(blank in text for blank in _BLANKS_BEFORE_COLON):
        return _NOT_PLAIN
    return value if text.count('":') == _count_keys(value) else _NOT_PLAIN


def _count_keys(value: object) -> int:
    """How many keys all objects within have together; far below 0 where there is a number that is no short integer."""
    members: Iterable[object]
    if isinstance(value, dict):
        members = value.values()
        count = len(value)
    elif isinstance(value, list):
        members = value
        count = 0
    else:
        return _NO_COUNT if isinstance(value, float) else 0
    for member in members:
        if not isinstance(member, str):
            count += _count_keys(member)
    return count


def _decoded(text: str) -> object:
    """`decode` looks for blanks on both sides by regular expressions, which takes longer than to read a short value."""
    value: object
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        end = -1  # blanks in front, or no JSON: `decode` takes the one and says where the other is wrong
    return value if end == len(text) else _DECODER.decode(text)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonInvalid(f"the key {key[:100]!r} stands twice in one object")
            seen.add(key)
    return members


def _refuse_constant(name: str) -> float:
    raise JsonInvalid(f"{name} is no JSON")


def _int(digits: str) -> int:
    if len(digits) > _MAX_NUMBER_LENGTH:
        raise JsonInvalid(f"a number of more than {_MAX_NUMBER_LENGTH} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > _MAX_NUMBER_LENGTH:
        raise JsonInvalid(f"a number of more than {_MAX_NUMBER_LENGTH} digits")
    exponent = digits.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > _MAX_EXPONENT:
        raise JsonInvalid(f"a number with an exponent beyond {_MAX_EXPONENT}")
    return float(digits)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int
)


_EXACT_DECODER = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal)


def _same(first: object, second: object) -> bool:
    match first, second:
        case dict(), dict():
            return first.keys() == second.keys() and all(_same(first[key], second[key]) for key in first)
        case list(), list():
            return len(first) == len(second) and all(map(_same, first, second))
        case _:
            # Numbers are decimals here, so that a boolean is never taken for one.
            return type(first) is type(second) and first == second


def _check_strings_and_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            match item:
                case str():
                    _check_string(item)
                case dict():
                    for key, member in item.items():
                        _check_string(key)
                        below.append(member)
                case list() | tuple():
                    below.extend(item)
        if not below:
            return
        level = below
    raise JsonInvalid(f"nested deeper than {MAX_DEPTH}")


def _check_string(text: str) -> None:
    if "\x00" in text:
        raise JsonInvalid("NUL (\\u0000) cannot be stored")
    if any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else False:
        raise JsonInvalid("a lone surrogate (\\ud800 to \\udfff) is no character")
