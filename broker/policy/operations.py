"""The operators and filters of the language on JSON values, each bounded before it starts.

Every function here either is cheap whatever it is given or takes its cost from the scope's budget first.
Members are those of JSON values alone: no Python attribute or method is ever reached.
"""

import base64
import json
import math
import operator
from collections.abc import Callable
from typing import Any, Final, cast

from broker.policy.bounds import (
    MAX_CONVERTED,
    MAX_NUMBER,
    SCAN_SHIFT,
    UNITS_PER_VALUE,
    ExpressionError,
    Scope,
    name_kind,
    weigh,
)

MISSING: Final = object()
"""What a member that is not there looks like to `is defined` and `default`; everything else sees None."""

_MAX_PRECISION = 15
_MAX_DIGITS = 400

_write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def member(value: object, key: object) -> object:
    """`value[key]` for a key of an object or an index of a list or text; MISSING for anything else."""
    if isinstance(value, dict):
        return value.get(key, MISSING) if isinstance(key, (str, int, float)) else MISSING
    if isinstance(value, (list, str)) and isinstance(key, int) and not isinstance(key, bool):
        return value[key] if -len(value) <= key < len(value) else MISSING
    return MISSING


def cut(scope: Scope, value: object, bounds: slice) -> object:
    """`value[start:stop:step]` of a list or a text; None for a value that has no order."""
    if not isinstance(value, (list, str)):
        return None
    for bound in (bounds.start, bounds.stop, bounds.step):
        if bound is not None and not isinstance(bound, int):
            raise ExpressionError(f"a slice needs whole numbers, not {name_kind(bound)}")
    length = len(range(*bounds.indices(len(value))))
    if isinstance(value, str):
        scope.spend_on_text(length)
    else:
        scope.spend(UNITS_PER_VALUE * length)
    return value[bounds]


def add(scope: Scope, left: object, right: object) -> object:
    """The sum of two numbers, or two texts or two lists joined."""
    if isinstance(left, str) and isinstance(right, str):
        scope.spend_on_text(len(left) + len(right))
        return left + right
    if isinstance(left, list) and isinstance(right, list):
        scope.spend(UNITS_PER_VALUE * (len(left) + len(right)))
        return left + right
    return _calculate("+", operator.add, left, right)


def subtract(_: Scope, left: object, right: object) -> object:
    """The difference of two numbers."""
    return _calculate("-", operator.sub, left, right)


def multiply(_: Scope, left: object, right: object) -> object:
    """The product of two numbers; texts and lists cannot be repeated."""
    return _calculate("*", operator.mul, left, right)


def divide(_: Scope, left: object, right: object) -> object:
    """The quotient of two numbers, never cut to a whole one."""
    return _calculate("/", operator.truediv, left, right)


def divide_whole(_: Scope, left: object, right: object) -> object:
    """The quotient of two numbers, rounded down."""
    return _calculate("//", operator.floordiv, left, right)


def remainder(_: Scope, left: object, right: object) -> object:
    """The remainder of a division of numbers; it never formats texts."""
    return _calculate("%", operator.mod, left, right)


def negate(_: Scope, value: object) -> object:
    """The number with the other sign."""
    return -_number("-", value)


def affirm(_: Scope, value: object) -> object:
    """The number itself."""
    return +_number("+", value)


def equals(scope: Scope, left: object, right: object) -> bool:
    """Whether two values are equal, as Python has it: 1 == 1.0 == true."""
    if type(left) is type(right) and isinstance(left, (str, list, dict)):
        _spend_on_comparison(scope, left, cast("str | list[object] | dict[str, object]", right))
    return left == right


def differs(scope: Scope, left: object, right: object) -> bool:
    """The opposite of `equals`."""
    return not equals(scope, left, right)


def is_less(scope: Scope, left: object, right: object) -> bool:
    """`left < right` of two numbers, two texts or two lists; None has no order."""
    return cast("bool", _order(scope, operator.lt, left, right))


def is_at_most(scope: Scope, left: object, right: object) -> bool:
    """`left <= right`, as `is_less`."""
    return cast("bool", _order(scope, operator.le, left, right))


def is_greater(scope: Scope, left: object, right: object) -> bool:
    """`left > right`, as `is_less`."""
    return cast("bool", _order(scope, operator.gt, left, right))


def is_at_least(scope: Scope, left: object, right: object) -> bool:
    """`left >= right`, as `is_less`."""
    return cast("bool", _order(scope, operator.ge, left, right))


def is_in(scope: Scope, item: object, container: object) -> bool:
    """Whether a list has the item, an object the key, or a text the text."""
    if isinstance(container, (list, tuple)):
        weight = weigh(item, scope.left) if isinstance(item, (list, dict)) else UNITS_PER_VALUE
        scope.spend(weight * len(container))
        return item in container
    if isinstance(container, dict):
        return member(container, item) is not MISSING
    if isinstance(container, str) and isinstance(item, str):
        scope.spend(len(container) >> SCAN_SHIFT)
        return item in container
    raise ExpressionError(f"'in' cannot look for {name_kind(item)} in {name_kind(container)}")


def is_not_in(scope: Scope, item: object, container: object) -> bool:
    """The opposite of `is_in`."""
    return not is_in(scope, item, container)


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
    return _checked(round(_number("round", value), precision))


def make_int(scope: Scope, value: object, default: object = 0) -> object:
    """Filter `int`: a number cut towards zero, a text read as a number; the default for what is no number."""
    if isinstance(value, str):
        if len(value) > _MAX_DIGITS:
            raise ExpressionError(f"'int' reads at most {_MAX_DIGITS} characters")
        try:
            return _checked(int(value))
        except ValueError:
            value = make_float(scope, value, None)
    return int(_number("int", value)) if isinstance(value, (int, float)) else default


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
    return float(_number("float", value)) if isinstance(value, (int, float)) else default


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


def _spend_on_comparison(
    scope: Scope, left: str | list[object] | dict[str, object], right: str | list[object] | dict[str, object]
) -> None:
    """Take the cost of comparing two values of one kind; a difference in length settles it for nothing."""
    if len(left) != len(right):
        return
    if isinstance(left, str):
        scope.spend(len(left) >> SCAN_SHIFT)
    else:
        scope.spend_on(left)


def _order(scope: Scope, compare: Callable[[Any, Any], object], left: object, right: object) -> object:
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return compare(left, right)
    if isinstance(left, str) and isinstance(right, str):
        scope.spend(min(len(left), len(right)) >> SCAN_SHIFT)
        return compare(left, right)
    if isinstance(left, list) and isinstance(right, list):
        scope.spend_on(left)
        return compare(left, right)
    raise ExpressionError(f"{name_kind(left)} and {name_kind(right)} have no order")


def _calculate(
    sign: str, calculate: Callable[[int | float, int | float], object], left: object, right: object
) -> int | float:
    first, second = _number(sign, left), _number(sign, right)
    try:
        return _checked(cast("int | float", calculate(first, second)))
    except ZeroDivisionError:
        raise ExpressionError("division by zero") from None


def _number(sign: str, value: object) -> int | float:
    if not isinstance(value, (int, float)):
        raise ExpressionError(f"{sign!r} does not work on {name_kind(value)}")
    return _checked(value)


def _checked(number: int | float) -> int | float:
    """The number itself where a double can hold it; ExpressionError for giants, infinities and NaN."""
    if not -MAX_NUMBER < number < MAX_NUMBER:
        raise ExpressionError("the number is too large")
    return number
