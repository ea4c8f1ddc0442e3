"""The filters of the language on JSON values, and how values become text; each bounded before it starts.

As in `operations`, what may be dear takes its cost from the scope's budget first. These are our own filters:
several of Jinja2's can be made to fill the memory with one argument.
"""

import base64
import json
import math

from broker.policy.bounds import MAX_CONVERTED, ExpressionError, Scope, name_kind, weigh
from broker.policy.operations import check_number, check_range

_MAX_PRECISION = 15
_MAX_DIGITS = 400

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def write_text(scope: Scope, value: object) -> str:
    """A value as text, as Jinja2 writes it: a text itself, None as 'None', a list as Python writes it."""
    if isinstance(value, str):
        return value
    _spend_on_conversion(scope, value)
    text = str(value)
    scope.spend_on_text(len(text))
    return text


def concatenate(scope: Scope, values: list[object], separator: str = "") -> str:
    """The texts of all values in one, with the separator between them."""
    _spend_on_conversion(scope, values)
    texts = [value if isinstance(value, str) else str(value) for value in values]
    scope.spend_on_text(sum(map(len, texts)) + len(separator) * max(len(texts) - 1, 0))
    return separator.join(texts)


def lower(scope: Scope, value: object) -> str:
    """Filter `lower`: of None it is 'none'."""
    return _prepare(scope, value).lower()


def upper(scope: Scope, value: object) -> str:
    """Filter `upper`."""
    return _prepare(scope, value).upper()


def trim(scope: Scope, value: object) -> str:
    """Filter `trim`: without the blanks at both ends."""
    return _prepare(scope, value).strip()


def measure(_: Scope, value: object) -> int:
    """Filter `length`: of a text, a list or an object."""
    if isinstance(value, (str, list, dict)):
        return len(value)
    raise ExpressionError(f"'length' needs a text, a list or an object, not {name_kind(value)}")


def join(scope: Scope, value: object, separator: object = "") -> str:
    """Filter `join`: the items of a list as one text."""
    if not isinstance(value, list):
        raise ExpressionError(f"'join' needs a list, not {name_kind(value)}")
    return concatenate(scope, value, write_text(scope, separator))


def round_number(_: Scope, value: object, precision: object = 0) -> object:
    """Filter `round`: half to even; a whole number stays whole, any other stays a double."""
    if not isinstance(precision, int) or not -_MAX_PRECISION <= precision <= _MAX_PRECISION:
        raise ExpressionError(f"'round' needs a precision from -{_MAX_PRECISION} to {_MAX_PRECISION}")
    return check_range(round(check_number("round", value), precision))


def make_int(scope: Scope, value: object, default: object = 0) -> object:
    """Filter `int`: a number cut towards zero, a text read as a number; the default for what is no number."""
    if isinstance(value, str):
        if len(value) > _MAX_DIGITS:
            raise ExpressionError(f"'int' reads at most {_MAX_DIGITS} characters")
        try:
            return check_range(int(value))
        except ValueError:
            value = make_float(scope, value, None)
    return int(check_number("int", value)) if isinstance(value, (int, float)) else default


def make_float(_: Scope, value: object, default: object = 0.0) -> object:
    """Filter `float`: a number as a double, a text read as one; the default for what is no finite number."""
    if isinstance(value, str):
        if len(value) > _MAX_DIGITS:
            raise ExpressionError(f"'float' reads at most {_MAX_DIGITS} characters")
        try:
            number = float(value)
        except ValueError:
            return default
        return number if math.isfinite(number) else default
    return float(check_number("float", value)) if isinstance(value, (int, float)) else default


def write_json(scope: Scope, value: object) -> str:
    """Filter `tojson`: JSON with every character as it is; nothing is escaped for HTML."""
    _spend_on_conversion(scope, value)
    text = _write_json(value)
    scope.spend_on_text(len(text))
    return text


def encode_base64(scope: Scope, value: object) -> str:
    """Filter `b64encode`: base64 of the text in UTF-8."""
    text = _prepare(scope, value)
    encoded = base64.b64encode(text.encode()).decode("ascii")
    scope.spend_on_text(len(encoded))
    return encoded


def _prepare(scope: Scope, value: object) -> str:
    """A value as text, with the cost of making another already taken; beyond ASCII that can be longer."""
    text = write_text(scope, value)
    scope.spend_on_text(len(text))
    if not text.isascii():
        scope.spend(len(text))
    return text


def _spend_on_conversion(scope: Scope, value: object) -> None:
    scope.spend(weigh(value, min(scope.left, MAX_CONVERTED)))
