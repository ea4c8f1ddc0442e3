"""Templates: texts with `{{ … }}` in them, rendered in the bounded language with native types kept.

Owns how texts and whole JSON structures are rendered, and how large the outcome may get. What an expression
means stands in `compiler`; a template knows nothing of playbooks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from jinja2 import nodes

from broker.policy.bounds import ExpressionError, Scope, weigh
from broker.policy.compiler import Run, compile_expression, is_path, names_in
from broker.policy.expression import evaluate
from broker.policy.filters import concatenate
from broker.policy.grammar import ExpressionInvalid, has_expressions, parse_text

MAX_RENDERED = 1_048_576
"""Weight of the largest value that may be rendered, about its length as JSON: the limit of a job's input."""

_CACHED_TEMPLATES = 512
_JSON_CHARACTERS_PER_VALUE = 2
_TOO_LARGE = f"the rendered value is larger than {MAX_RENDERED} characters of JSON"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template; `names` are the top-level names that it uses."""

    text: str
    names: frozenset[str]
    run: Run = field(repr=False, compare=False)

    def render(self, context: Mapping[str, object]) -> object:
        """The JSON value that the template becomes; raises ExpressionError.

        A text that is exactly one `{{ … }}` (line breaks around it aside) keeps the native value; any other
        gives a text. What the template only passes on is the context's own value, not a copy.
        """
        return evaluate(self.run, Scope(context))


def compile_template(text: str) -> Template:
    """A template from its text, cached; raises ExpressionInvalid with the place. Any name may be used."""
    if not has_expressions(text):
        return Template(text, frozenset(), lambda _: text)
    return _compile(text)


def render_value(value: object, context: Mapping[str, object]) -> object:
    """A copy of a JSON structure with every text in it rendered; keys stay as they are.

    Raises ExpressionError with the path of the text ("data.items[2]"), and when the outcome is over 1 MiB.
    """
    try:
        return _Rendering(context).render(value, "")
    except RecursionError as error:
        raise ExpressionError("the value is nested too deeply") from error


@lru_cache(maxsize=_CACHED_TEMPLATES)
def _compile(text: str) -> Template:
    parts = parse_text(text)
    expressions = [part for part in parts if isinstance(part, nodes.Expr)]
    names = frozenset(name.name for expression in expressions for name in names_in(expression))
    if len(expressions) == 1 and all(part == "\n" for part in parts if isinstance(part, str)):
        return Template(text, names, _compile_native(expressions[0]))
    return Template(text, names, _compile_mixed(parts))


def _compile_native(expression: nodes.Expr) -> Run:
    run = compile_expression(expression)
    if is_path(expression):
        return run

    def run_bounded(scope: Scope) -> object:
        value = run(scope)
        _weigh_rendered(value, MAX_RENDERED)
        return value

    return run_bounded


def _compile_mixed(parts: tuple[str | nodes.Expr, ...]) -> Run:
    pieces = [part if isinstance(part, str) else compile_expression(part) for part in parts]

    def run(scope: Scope) -> object:
        return concatenate(scope, [piece if isinstance(piece, str) else piece(scope) for piece in pieces])

    return run


class _Rendering:
    """One structure being rendered: its context, and how many characters of JSON it may still become."""

    __slots__ = ("_context", "_left")

    def __init__(self, context: Mapping[str, object]) -> None:
        self._context = context
        self._left = MAX_RENDERED

    def render(self, value: object, path: str) -> object:
        """The value with every text rendered; `path` is where it stands."""
        match value:
            case str():
                return self._render_text(value, path)
            case list():
                return [self.render(item, f"{path}[{index}]") for index, item in enumerate(value)]
            case dict():
                return {
                    key: self.render(item, f"{path}.{key}" if path else str(key))
                    for key, item in value.items()
                }
        return value

    def _render_text(self, text: str, path: str) -> object:
        try:
            rendered = compile_template(text).render(self._context)
            self._left -= (
                len(rendered) if isinstance(rendered, str) else _weigh_rendered(rendered, self._left)
            )
            if self._left < 0:
                raise ExpressionError(_TOO_LARGE)
        except (ExpressionError, ExpressionInvalid) as error:
            raise ExpressionError(error.message, path) from error
        return rendered


def _weigh_rendered(value: object, limit: int) -> int:
    """About the length of a value as JSON; ExpressionError when it is over the limit."""
    try:
        return weigh(value, limit, _JSON_CHARACTERS_PER_VALUE)
    except ExpressionError as error:
        raise ExpressionError(_TOO_LARGE) from error
