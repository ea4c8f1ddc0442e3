"""The operators of the language on JSON values, each bounded before it starts.

Every function here either is cheap whatever it is given or takes its cost from the scope's budget first.
Members are those of JSON values alone: no Python attribute or method is ever reached.
"""

import operator
from collections.abc import Callable
from typing import Any, Final, cast

from broker.policy.bounds import (
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
    return -check_number("-", value)


def affirm(_: Scope, value: object) -> object:
    """The number itself."""
    return +check_number("+", value)


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


def check_number(sign: str, value: object) -> int | float:
    """The value as a number fit for arithmetic; ExpressionError names `sign`, what it was needed for."""
    if not isinstance(value, (int, float)):
        raise ExpressionError(f"{sign!r} does not work on {name_kind(value)}")
    return check_range(value)


def check_range(number: int | float) -> int | float:
    """The number itself where a double can hold it; ExpressionError for giants, infinities and NaN."""
    if not -MAX_NUMBER < number < MAX_NUMBER:
        raise ExpressionError("the number is too large")
    return number


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
    first, second = check_number(sign, left), check_number(sign, right)
    try:
        return check_range(cast("int | float", calculate(first, second)))
    except ZeroDivisionError:
        raise ExpressionError("division by zero") from None
