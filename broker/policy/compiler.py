"""A checked syntax tree becomes a tree of closures: one call per node, no generated code, nothing folded.

It gives each node its meaning and leaves the work to `operations` and `filters`. It relies on `grammar` to let in only
nodes that it knows.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from jinja2 import nodes

from broker.policy import filters, operations
from broker.policy.bounds import ExpressionError, Scope
from broker.policy.grammar import FILTERS
from broker.policy.operations import MISSING

Run: TypeAlias = Callable[[Scope], object]
"""A compiled expression: its value in one scope. Raises ExpressionError, or what Python does."""

_BINARY: dict[type[nodes.BinExpr], Callable[[Scope, object, object], object]] = {
    nodes.Add: operations.add,
    nodes.Sub: operations.subtract,
    nodes.Mul: operations.multiply,
    nodes.Div: operations.divide,
    nodes.FloorDiv: operations.divide_whole,
    nodes.Mod: operations.remainder,
}
_COMPARISONS: dict[str, Callable[[Scope, object, object], bool]] = {
    "eq": operations.equals,
    "ne": operations.differs,
    "lt": operations.is_less,
    "lteq": operations.is_at_most,
    "gt": operations.is_greater,
    "gteq": operations.is_at_least,
    "in": operations.is_in,
    "notin": operations.is_not_in,
}
_FILTERS: dict[str, Callable[..., object]] = {
    "b64encode": filters.encode_base64,
    "float": filters.make_float,
    "int": filters.make_int,
    "join": filters.join,
    "length": filters.measure,
    "lower": filters.lower,
    "round": filters.round_number,
    "string": filters.write_text,
    "tojson": filters.write_json,
    "trim": filters.trim,
    "upper": filters.upper,
}


def compile_expression(node: nodes.Expr) -> Run:
    """The closure that computes the expression; a member that is not there is None."""
    return _COMPILERS[type(node)](node)


def is_path(node: nodes.Expr) -> bool:
    """Whether the expression only names a value of the context: its result is passed on, not made."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        node = node.node
    return isinstance(node, nodes.Name)


def names_in(node: nodes.Expr) -> list[nodes.Name]:
    """Every top-level name that the expression uses, in no order, with its place."""
    found = [node] if isinstance(node, nodes.Name) else []
    return found + list(node.find_all(nodes.Name))


def _compile_lookup(node: nodes.Expr) -> Run:
    """As `compile_expression`, but what is not there is MISSING, a top-level name included."""
    match node:
        case nodes.Name(name=name):
            return lambda scope: scope.names.get(name, MISSING)
        case nodes.Getattr(attr=attribute):
            owner = _compile_lookup(node.node)
            return lambda scope: operations.member(owner(scope), attribute)
        case nodes.Getitem() if not isinstance(node.arg, nodes.Slice):
            owner, key = _compile_lookup(node.node), compile_expression(node.arg)
            return lambda scope: operations.member(owner(scope), key(scope))
    return compile_expression(node)


def _compile_name(node: nodes.Name) -> Run:
    name = node.name

    def run(scope: Scope) -> object:
        try:
            return scope.names[name]
        except KeyError:
            raise ExpressionError(f"{name!r} is not defined") from None

    return run


def _compile_constant(node: nodes.Const) -> Run:
    value: object = node.value
    return lambda _: value


def _compile_list(node: nodes.List | nodes.Tuple) -> Run:
    items = [compile_expression(item) for item in node.items]
    return lambda scope: [item(scope) for item in items]


def _compile_object(node: nodes.Dict) -> Run:
    pairs = [(compile_expression(pair.key), compile_expression(pair.value)) for pair in node.items]

    def run(scope: Scope) -> object:
        made: dict[str, object] = {}
        for key_of, value_of in pairs:
            key = key_of(scope)
            if not isinstance(key, str):
                raise ExpressionError("the keys of an object are texts")
            made[key] = value_of(scope)
        return made

    return run


def _compile_attribute(node: nodes.Getattr) -> Run:
    owner, attribute = compile_expression(node.node), node.attr

    def run(scope: Scope) -> object:
        value = owner(scope)
        return value.get(attribute) if isinstance(value, dict) else None

    return run


def _compile_item(node: nodes.Getitem) -> Run:
    owner = compile_expression(node.node)
    if isinstance(node.arg, nodes.Slice):
        bounds = [
            part and compile_expression(part) for part in (node.arg.start, node.arg.stop, node.arg.step)
        ]

        def run_slice(scope: Scope) -> object:
            return operations.cut(scope, owner(scope), slice(*(bound and bound(scope) for bound in bounds)))

        return run_slice
    key = compile_expression(node.arg)

    def run(scope: Scope) -> object:
        value = operations.member(owner(scope), key(scope))
        return None if value is MISSING else value

    return run


def _compile_conditional(node: nodes.CondExpr) -> Run:
    test, then = compile_expression(node.test), compile_expression(node.expr1)
    otherwise = compile_expression(node.expr2 or nodes.Const(None))
    return lambda scope: then(scope) if test(scope) else otherwise(scope)


def _compile_and(node: nodes.And) -> Run:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) and right(scope)


def _compile_or(node: nodes.Or) -> Run:
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: left(scope) or right(scope)


def _compile_not(node: nodes.Not) -> Run:
    value = compile_expression(node.node)
    return lambda scope: not value(scope)


def _compile_binary(node: nodes.BinExpr) -> Run:
    calculate = _BINARY[type(node)]
    left, right = compile_expression(node.left), compile_expression(node.right)
    return lambda scope: calculate(scope, left(scope), right(scope))


def _compile_sign(node: nodes.Neg | nodes.Pos) -> Run:
    calculate = operations.negate if isinstance(node, nodes.Neg) else operations.affirm
    value = compile_expression(node.node)
    return lambda scope: calculate(scope, value(scope))


def _compile_comparison(node: nodes.Compare) -> Run:
    first = compile_expression(node.expr)
    links = [(_COMPARISONS[link.op], _compile_operand(link)) for link in node.ops]
    if len(links) == 1:
        compare, second = links[0]
        return lambda scope: compare(scope, first(scope), second(scope))

    def run(scope: Scope) -> object:
        left = first(scope)
        for compare, right_of in links:
            right = right_of(scope)
            if not compare(scope, left, right):
                return False
            left = right
        return True

    return run


def _compile_operand(link: nodes.Operand) -> Run:
    """The right side of a comparison; a list of constants behind `in` is made once."""
    if link.op in ("in", "notin") and isinstance(link.expr, (nodes.List, nodes.Tuple)):
        items = [item.value for item in link.expr.items if isinstance(item, nodes.Const)]
        if len(items) == len(link.expr.items):
            return lambda _: items
    return compile_expression(link.expr)


def _compile_concatenation(node: nodes.Concat) -> Run:
    values = [compile_expression(value) for value in node.nodes]
    return lambda scope: filters.concatenate(scope, [value(scope) for value in values])


def _compile_filter(node: nodes.Filter) -> Run:
    named = {str(keyword.key): keyword.value for keyword in node.kwargs}
    if node.name == "default":
        return _compile_default(node, named)
    apply, value = _FILTERS[node.name], compile_expression(node.node)  # type: ignore[arg-type]
    given = [*node.args, *named.values()]
    if not given:
        return lambda scope: apply(scope, value(scope))
    argument = compile_expression(given[0])
    return lambda scope: apply(scope, value(scope), argument(scope))


def _compile_default(node: nodes.Filter, named: dict[str, nodes.Expr]) -> Run:
    """`default` stands in for what is missing and for None, which here are one.

    With a true second argument it stands in for all that is empty, as in Jinja2.
    """
    arguments = dict(zip(FILTERS["default"], node.args, strict=False)) | named
    value = _compile_lookup(node.node)  # type: ignore[arg-type]
    fallback = compile_expression(arguments.get("default_value", nodes.Const("")))
    for_empty = compile_expression(arguments.get("boolean", nodes.Const(False)))

    def run(scope: Scope) -> object:
        found = value(scope)
        if found is MISSING or found is None or (not found and for_empty(scope)):
            return fallback(scope)
        return found

    return run


def _compile_test(node: nodes.Test) -> Run:
    if node.name == "none":
        value = compile_expression(node.node)
        return lambda scope: value(scope) is None
    found = _compile_lookup(node.node)
    return lambda scope: found(scope) is not MISSING


_COMPILERS: dict[type[nodes.Node], Callable[[Any], Run]] = {
    nodes.Name: _compile_name,
    nodes.Const: _compile_constant,
    nodes.List: _compile_list,
    nodes.Tuple: _compile_list,
    nodes.Dict: _compile_object,
    nodes.Getattr: _compile_attribute,
    nodes.Getitem: _compile_item,
    nodes.CondExpr: _compile_conditional,
    nodes.And: _compile_and,
    nodes.Or: _compile_or,
    nodes.Not: _compile_not,
    **dict.fromkeys(_BINARY, _compile_binary),
    nodes.Neg: _compile_sign,
    nodes.Pos: _compile_sign,
    nodes.Compare: _compile_comparison,
    nodes.Concat: _compile_concatenation,
    nodes.Filter: _compile_filter,
    nodes.Test: _compile_test,
}
