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
from broker.policy.grammar import ExpressionInvalid, has_expressions, parse_text
from broker.policy.operations import concatenate

MAX_RENDERED = 1_048_576
"""Weight of the largest value that may be rendered, about its length as JSON: the limit of a job's input."""

_CACHED_TEMPLATES = 512
_JSON_CHARACTERS_PER_VALUE = 2


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
        rendered = _render(value, context, "")
    except RecursionError as error:
        raise ExpressionError("the value is nested too deeply") from error
    _refuse_giant(rendered)
    return rendered


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
        _refuse_giant(value)
        return value

    return run_bounded


def _compile_mixed(parts: tuple[str | nodes.Expr, ...]) -> Run:
    pieces = [part if isinstance(part, str) else compile_expression(part) for part in parts]

    def run(scope: Scope) -> object:
        return concatenate(scope, [piece if isinstance(piece, str) else piece(scope) for piece in pieces])

    return run


def _render(value: object, context: Mapping[str, object], path: str) -> object:
    match value:
        case str():
            return _render_text(value, context, path)
        case list():
            return [_render(item, context, f"{path}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {
                key: _render(item, context, f"{path}.{key}" if path else key) for key, item in value.items()
            }
    return value


def _render_text(text: str, context: Mapping[str, object], path: str) -> object:
    try:
        return compile_template(text).render(context)
    except (ExpressionError, ExpressionInvalid) as error:
        raise ExpressionError(error.message, path) from error


def _refuse_giant(value: object) -> None:
    try:
        weigh(value, MAX_RENDERED, _JSON_CHARACTERS_PER_VALUE)
    except ExpressionError as error:
        raise ExpressionError(
            f"the rendered value is larger than {MAX_RENDERED} characters of JSON"
        ) from error
