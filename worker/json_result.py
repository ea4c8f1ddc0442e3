"""Turns what a step returned into JSON text that PostgreSQL can hold.

Imported by the children that run a step, in every attempt: it must import nothing but `json` until it is
needed.
"""

from json import JSONDecoder, JSONEncoder
from typing import Any

LONE_SURROGATE = "holds a lone surrogate, which is no Unicode text"


class ResultNotJson(ValueError):
    """The value has no faithful JSON form: NaN, a NUL character, a set, an object of an unknown class, a
    cycle.

    `fault` is the same without saying of what: "is not JSON: …".
    """

    def __init__(self, fault: str) -> None:
        super().__init__(f"result {fault}")
        self.fault = fault


def encode_result(value: Any) -> str:
    """JSON text of a value.

    Dates become ISO 8601 text, a UUID its text, a Decimal a number where that loses nothing, else text.

    Raises ResultNotJson, which names what cannot be turned.
    """
    try:
        text = _ENCODER.encode(value)
        text.encode()
    except UnicodeEncodeError as error:
        raise ResultNotJson(LONE_SURROGATE) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultNotJson(f"is not JSON: {error}") from error
    if "\\u0000" in text and _holds_nul(_DECODER.decode(text)):
        raise ResultNotJson("holds a NUL character, which PostgreSQL cannot store")
    return text


def _to_json(value: Any) -> Any:
    from datetime import date, datetime, time
    from decimal import Decimal
    from uuid import UUID

    match value:
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return number_of(value)
        case _:
            raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def number_of(value: Any) -> int | float | str:
    """A Decimal as int or float where that loses nothing (integers, and up to 15 significant digits), else as
    text.

    Raises ValueError on NaN and infinity.
    """
    if not value.is_finite():
        raise ValueError(f"{value} has no JSON form")
    digits = value.as_tuple()
    if digits.exponent >= 0 and value.adjusted() < 100:
        return int(value)
    # A double keeps every decimal of 15 digits (DBL_DIG) unless it leaves the range of normal doubles.
    if len(digits.digits) <= 15 and -300 < value.adjusted() < 300:
        return float(value)
    return str(value)


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
        case list():
            return any(_holds_nul(item) for item in value)
        case _:
            return False


# Made before any step runs: one that patches `json` must still be able to answer.
_ENCODER = JSONEncoder(default=_to_json, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_DECODER = JSONDecoder()
