"""Checks, when a playbook is registered, that every template and every condition in it compiles.

A fault points into the document: to the place in the YAML text, not only in the template.
"""

from broker.playbook.document import Faults, Located, describe
from broker.policy.expression import Condition, ExpressionInvalid, compile_condition
from broker.policy.grammar import has_expressions
from broker.policy.retry_policy import RetryInvalid, RetryPolicy, parse_retry
from broker.policy.template import compile_template


def is_template(value: object) -> bool:
    """Whether a value is a text that may become anything once it is rendered."""
    return isinstance(value, str) and has_expressions(value)


def check_templates(at: Located, faults: Faults) -> None:
    """Records a fault for every text in a value that is no template of the language."""
    if isinstance(at.node.value, str):
        try:
            compile_template(at.node.value)
        except ExpressionInvalid as error:
            add_invalid(at, error, faults)
    for part in at.parts():
        check_templates(part, faults)


def read_condition(at: Located, faults: Faults) -> Condition | None:
    """A condition over any names: true, false or exactly one `{{ … }}`."""
    if not isinstance(at.node.value, (str, bool)):
        faults.add(at, f"must be true, false or exactly one {{{{ … }}}}, not {describe(at.node.value)}")
        return None
    try:
        return compile_condition(at.node.value, None)
    except ExpressionInvalid as error:
        add_invalid(at, error, faults)
        return None


def read_retry(at: Located, faults: Faults) -> RetryPolicy | None:
    """The retry policy of a step; None for one attempt. Its conditions are compiled, never rendered."""
    try:
        return parse_retry(at.node.value)
    except RetryInvalid as error:
        for problem in error.problems:
            if problem.path not in at:
                faults.add(at, problem.message)
            elif problem.is_not_yet:
                faults.add_not_yet(at, problem.path, f"`{problem.path}`")
            elif problem.line is None:
                faults.add_key(at, problem.path, problem.message)
            else:
                condition = at.entry(problem.path)
                place = condition.node.place_in_text(problem.line, problem.column)
                faults.add_at(place, condition.path, problem.message)
        return None


def add_invalid(at: Located, error: ExpressionInvalid, faults: Faults) -> None:
    """Record what is wrong with an expression where it stands in the document."""
    faults.add_at(at.node.place_in_text(error.line, error.column), at.path, error.message)
