"""Conditions: expressions of the bounded language that are asked for true or false.

The language is Jinja2's expressions without calls, loops and powers. `grammar` reads, `compiler` compiles,
`operations` and `filters` compute, `bounds` limits; here stand the rule of truth and what a condition may look like.
Nothing in it does I/O or reads a clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from jinja2 import nodes

from broker.policy.bounds import ExpressionError, Scope
from broker.policy.compiler import Run, compile_expression, names_in
from broker.policy.grammar import ExpressionInvalid, invalid_at, parse_text, suggest, unify_breaks

__all__ = [
    "CONDITION_NAMES",
    "Condition",
    "ExpressionError",
    "ExpressionInvalid",
    "compile_condition",
    "evaluate",
    "is_true",
]

CONDITION_NAMES: Final = frozenset(
    {
        *("error", "error_type", "status_code", "success", "data", "result", "attempt", "max_attempts"),
        *("elapsed", "retry_after", "queue", "kind"),
    }
)
"""What retry_when and stop_when see; every name is always there, None when unknown (semantics.md)."""

MAX_CONDITION = 4096
"""Characters of a condition."""

_CACHED_CONDITIONS = 512
_FALSE_WORDS = frozenset({"", "false", "no", "n", "off", "0", "none", "null"})
_LONGEST_FALSE_WORD = max(map(len, _FALSE_WORDS))


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition; `names` are the top-level names that it uses."""

    text: str
    names: frozenset[str]
    run: Run = field(repr=False, compare=False)

    def evaluate(self, context: Mapping[str, object]) -> bool:
        """Whether the condition holds for JSON values by name; raises ExpressionError."""
        return is_true(self.value(context))

    def value(self, context: Mapping[str, object]) -> object:
        """The native value that `evaluate` judges; raises ExpressionError."""
        return evaluate(self.run, Scope(context))


def compile_condition(text: str | bool, names: frozenset[str] | None) -> Condition:
    """A condition from a boolean or from exactly one `{{ … }}`; cached by text.

    `names` are the names that it may use, None allows any. Raises ExpressionInvalid with its place.
    """
    if isinstance(text, bool):
        return Condition(str(text).lower(), frozenset(), lambda _: text)
    return _compile_text(text, names)


def is_true(value: object) -> bool:
    """The one rule of truth: None, false, 0, empty and the words for them are false; all else is true."""
    if isinstance(value, str):
        word = value.strip()
        return len(word) > _LONGEST_FALSE_WORD or word.lower() not in _FALSE_WORDS
    return bool(value)


def evaluate(run: Run, scope: Scope) -> object:
    """The value of a compiled expression in a scope; what Python raises becomes an ExpressionError."""
    try:
        return run(scope)
    except RecursionError as error:
        raise ExpressionError("the values are nested too deeply") from error
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise ExpressionError(str(error) or type(error).__name__) from error


@lru_cache(maxsize=_CACHED_CONDITIONS)
def _compile_text(text: str, names: frozenset[str] | None) -> Condition:
    if len(text) > MAX_CONDITION:
        raise ExpressionInvalid(f"the condition has more than {MAX_CONDITION} characters", 1, 1)
    text = unify_breaks(text)
    expression = _parse_only_expression(text)
    used = names_in(expression)
    _refuse_unknown(text, used, names)
    return Condition(text, frozenset(name.name for name in used), compile_expression(expression))


def _parse_only_expression(text: str) -> nodes.Expr:
    """The expression of a text that is exactly one `{{ … }}`, blanks around it aside."""
    stripped = text.strip()
    if stripped.startswith("{{") and stripped.endswith("}}"):
        parts = [part for part in parse_text(text) if not isinstance(part, str) or part.strip()]
        if len(parts) == 1 and isinstance(parts[0], nodes.Expr):
            return parts[0]
    start = len(text) - len(text.lstrip())
    raise invalid_at(text, start, "a condition is true, false or exactly one {{ … }}")


def _refuse_unknown(text: str, used: Iterable[nodes.Name], names: frozenset[str] | None) -> None:
    if names is None:
        return
    for name in sorted(used, key=lambda name: name.lineno):
        if name.name not in names:
            raise invalid_at(text, name.lineno, f"unknown name {name.name!r}: {suggest(name.name, names)}")
