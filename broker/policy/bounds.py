"""What one evaluation may cost: the limits, the budget that is spent against them, and the weight of a value.

Nothing here computes a result. C-level work on a large value cannot be interrupted, so every operation asks
for its cost here before it starts. The limits keep one expression below 50 ms of CPU and 10 MB at its peak;
`tests/unit/policy/test_bombs.py` measures that.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

BUDGET = 1_048_576
"""Units that one evaluation may spend. A unit is one character; a value costs `UNITS_PER_VALUE`."""

UNITS_PER_VALUE = 8
"""Weight of one JSON value apart from its text: about 60 ns to visit and up to 90 bytes to write out."""

_VALUES_PER_LEVEL = 24
"""What going one level deeper costs, in values: some 4 us, whatever stands there (measured 2026-11, two busy cores)."""

_BITS_SHIFT = 1
"""A number of b bits costs b / 2: writing it out in decimal takes longer the longer it is."""

MAX_CONVERTED = 524_288
"""Weight of the largest value that is written out as text; `repr` makes up to ten characters out of one."""

MAX_TEXT = 262_144
"""Characters in the longest text that an operation may make. A text that is only passed on may be longer."""

MAX_NUMBER = 2**1024
"""Numbers in arithmetic stay below this; it is also about where a double ends."""

SCAN_SHIFT = 4
"""Searching a text costs its length / 2^4: at worst 3.3 ms for 1 MiB (measured 2026-11, CPython 3.11)."""


class ExpressionError(Exception):
    """An expression could not be evaluated. `path` leads to its text in a structure, "" for a single one."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message = message
        self.path = path


class Scope:
    """One evaluation: the names it sees and what is left of its budget."""

    __slots__ = ("left", "names")

    def __init__(self, names: Mapping[str, object]) -> None:
        self.names = names
        self.left = BUDGET

    def spend(self, units: int) -> None:
        """Take `units` from the budget; ExpressionError when they are not there."""
        self.left -= units
        if self.left < 0:
            raise ExpressionError("the values are too large to compute with")

    def spend_on(self, value: object) -> None:
        """Take the weight of `value` from the budget."""
        self.spend(weigh(value, self.left))

    def spend_on_text(self, length: int) -> None:
        """Take `length` characters from the budget; ExpressionError if one text may not have so many."""
        if length > MAX_TEXT:
            raise ExpressionError(
                f"a text of {length} characters is too long: at most {MAX_TEXT} can be made"
            )
        self.spend(length)


def weigh(value: object, limit: int, units_per_value: int = UNITS_PER_VALUE) -> int:
    """Units of a JSON value: its characters and `units_per_value` for every value in it.

    A part that is shared counts each time. Walks level by level, at the speed of C within one, and raises
    ExpressionError as soon as `limit` is passed, so the walk itself is bounded.
    """
    total = 0
    level: list[Any] = [value]
    while True:
        total += units_per_value * (len(level) + _VALUES_PER_LEVEL)
        kinds = set(map(type, level))
        if str in kinds:
            total += sum(map(len, _of_kind(str, level, kinds)))
        if int in kinds:
            total += sum(map(int.bit_length, _of_kind(int, level, kinds))) >> _BITS_SHIFT
        lists = _of_kind(list, level, kinds) if list in kinds else []
        objects = _of_kind(dict, level, kinds) if dict in kinds else []
        inside = sum(map(len, lists)) + sum(map(len, objects))
        if total + units_per_value * inside > limit:
            raise ExpressionError(f"a value is too large to compute with: it weighs more than {limit} units")
        if not inside:
            return total
        total += sum(map(len, chain.from_iterable(objects)))
        level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, objects))]


def _of_kind(kind: type, level: list[Any], kinds: set[type]) -> list[Any]:
    """The items of one kind in a level that holds these kinds."""
    return level if len(kinds) == 1 else [item for item in level if type(item) is kind]


def name_kind(value: object) -> str:
    """The JSON word for the kind of a value, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"
