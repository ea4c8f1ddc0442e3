"""Jinja2's grammar with places: a text becomes a syntax tree of allowed nodes, each knowing where it stands.

Only Jinja2's lexer and parser are used. Its compiler is not: that folds constants while it compiles
(`[0] * 10**7` takes 41 s, measured 2026-11 with 3.1.6) and turns members into Python attributes. Nothing is
evaluated here. Tokens are counted while they are read, nodes before anything is made of them.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.lexer import Lexer
from jinja2.parser import Parser

from broker.policy.bounds import MAX_NUMBER

MAX_TEMPLATE = 65_536
"""Characters of a text with expressions in it."""

MAX_TOKENS = 800
MAX_NODES = 256
MAX_DEPTH = 100
MAX_DIGITS = 310

FILTERS: dict[str, tuple[str, ...]] = {
    "b64encode": (),
    "default": ("default_value", "boolean"),
    "float": ("default",),
    "int": ("default",),
    "join": ("d",),
    "length": (),
    "lower": (),
    "round": ("precision",),
    "string": (),
    "tojson": (),
    "trim": (),
    "upper": (),
}
"""Every filter of the language with its parameters, named as in Jinja2."""

TESTS = ("defined", "none")

_ALLOWED: frozenset[type[nodes.Node]] = frozenset(
    {
        *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair),
        *(nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.CondExpr),
        *(nodes.And, nodes.Or, nodes.Not, nodes.Compare, nodes.Operand),
        *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos),
        *(nodes.Concat, nodes.Filter, nodes.Test, nodes.Keyword),
    }
)
_REFUSALS: dict[type[nodes.Node], str] = {
    nodes.Call: "calls are not allowed",
    nodes.Pow: "powers (**) are not allowed",
}
_GIANT_NUMBER = re.compile(r"[\d_]{16384}")
"""Jinja2's lexer takes 300 bytes for each digit of a number; such a run is refused wherever it stands."""

_OFFSET_IN_MESSAGE = re.compile(r" at \d+$")


class ExpressionInvalid(ValueError):
    """A text that is no expression of the language. `line` and `column` count from 1 in that text."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"{message} (line {line}, column {column})")
        self.message = message
        self.line = line
        self.column = column


class _PlacedLexer(Lexer):
    """Numbers tokens by their offset, not their line: parser, nodes and errors then carry exact places."""

    def tokeniter(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> Iterator[tuple[int, str, str]]:
        at = count = 0
        try:
            for _, kind, text in super().tokeniter(source, name, filename, state):
                at = source.find(text, at)
                count += kind != "whitespace"
                if count > MAX_TOKENS:
                    raise TemplateSyntaxError("the text has too many parts", at)
                if kind in ("integer", "float") and len(text) > MAX_DIGITS:
                    raise TemplateSyntaxError("the number is too long", at)
                yield at, kind, text
                at += len(text)
        except TemplateSyntaxError as error:
            error.lineno = at
            raise


class _Dialect(Environment):
    """Jinja2's syntax as it is by default, read by the lexer above."""

    @property
    def lexer(self) -> Lexer:
        return _lexer()


@lru_cache(maxsize=1)
def _lexer() -> Lexer:
    return _PlacedLexer(_DIALECT)


_DIALECT = _Dialect(keep_trailing_newline=True)


def has_expressions(text: str) -> bool:
    """Whether a text is more than literal: it opens an expression, a statement or a comment."""
    return "{{" in text or "{%" in text or "{#" in text


def parse_text(text: str) -> tuple[str | nodes.Expr, ...]:
    """The literal parts and the checked expressions of a text, in order.

    Raises ExpressionInvalid at the first syntax error and at anything that the language leaves out.
    """
    if len(text) > MAX_TEMPLATE:
        raise ExpressionInvalid(f"the text has more than {MAX_TEMPLATE} characters", 1, 1)
    text = unify_breaks(text)
    if run := _GIANT_NUMBER.search(text):
        raise invalid_at(text, run.start(), "the number is too long")
    try:
        tree = Parser(_DIALECT, text).parse()
    except TemplateSyntaxError as error:
        message = _OFFSET_IN_MESSAGE.sub("", error.message or "syntax error").rstrip(".")
        raise invalid_at(text, error.lineno, message[0].lower() + message[1:]) from error
    except RecursionError as error:
        raise ExpressionInvalid("the expression is nested too deeply", 1, 1) from error
    return tuple(itertools.chain.from_iterable(_parts_of(text, node) for node in tree.body))


def unify_breaks(text: str) -> str:
    """The text with each line break as one character, so that offsets in it are those of the parser."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def invalid_at(text: str, offset: int, message: str) -> ExpressionInvalid:
    """The refusal of what stands at `offset` in `text`."""
    return ExpressionInvalid(message, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def suggest(name: str, known: Iterable[str]) -> str:
    """A tail for a message about an unknown name: the known one that was meant, or all there are."""
    candidates = sorted(known)
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(candidates)}"


def _parts_of(text: str, node: nodes.Node) -> Iterator[str | nodes.Expr]:
    if not isinstance(node, nodes.Output):
        raise invalid_at(text, node.lineno, "statements ({% … %}) are not allowed, only {{ … }}")
    for part in node.nodes:
        if isinstance(part, nodes.TemplateData):
            yield part.data
        else:
            _check(text, part)
            yield part


def _check(text: str, expression: nodes.Node) -> None:
    """Refuse any node that is not on the list; walks without recursion, since the tree may be deep."""
    pending = [(expression, 1)]
    for count in itertools.count(1):
        if not pending:
            return
        node, depth = pending.pop()
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise invalid_at(text, node.lineno, "the expression is too large")
        if type(node) not in _ALLOWED:
            message = _REFUSALS.get(type(node), f"{type(node).__name__.lower()} is not part of the language")
            raise invalid_at(text, node.lineno, message)
        _check_details(text, node)
        for child in node.iter_child_nodes():
            if child.lineno is None:  # Jinja2 gives the links of a comparison no place of their own.
                child.lineno = node.lineno
            pending.append((child, depth + 1))


def _check_details(text: str, node: nodes.Node) -> None:
    match node:
        case nodes.Const(value=int() | float() as number) if not -MAX_NUMBER < number < MAX_NUMBER:
            raise invalid_at(text, node.lineno, "the number is too large")
        case nodes.Const(value=str() as literal) if not _is_storable(literal):
            raise invalid_at(text, node.lineno, "a text cannot hold NUL or half of a surrogate pair")
        case nodes.Filter():
            _check_filter(text, node)
        case nodes.Test():
            if node.name not in TESTS:
                raise invalid_at(
                    text, node.lineno, f"unknown test {node.name!r}: {suggest(node.name, TESTS)}"
                )
            if node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
                raise invalid_at(text, node.lineno, f"test {node.name!r} takes no arguments")


def _check_filter(text: str, node: nodes.Filter) -> None:
    parameters = FILTERS.get(node.name)
    if parameters is None:
        raise invalid_at(text, node.lineno, f"unknown filter {node.name!r}: {suggest(node.name, FILTERS)}")
    open_parameters = parameters[len(node.args) :]
    given = [keyword.key for keyword in node.kwargs]
    if (
        node.dyn_args
        or node.dyn_kwargs
        or len(node.args) > len(parameters)
        or len(set(given)) < len(given)
        or not set(given) <= set(open_parameters)
    ):
        takes = f"takes only {', '.join(parameters)}" if parameters else "takes no arguments"
        raise invalid_at(text, node.lineno, f"filter {node.name!r} {takes}")


def _is_storable(literal: str) -> bool:
    return "\0" not in literal and not any("\ud800" <= character <= "\udfff" for character in literal)
