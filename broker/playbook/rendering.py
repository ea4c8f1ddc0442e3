"""Renders a step's templates into the input of its job, bounded in size.

Every refusal names the template's place. Code of python steps and conditions are never rendered.
"""

import json
from collections.abc import Callable, Iterable
from typing import Final

from broker.playbook.context import Names
from broker.playbook.document import Located, describe
from broker.playbook.model import Step, Task
from broker.playbook.step_types import STEP_TYPES, Shape, misfit
from broker.policy.bounds import ExpressionError, weigh
from broker.policy.facts import TEMPLATE_ERROR, Failure
from broker.policy.template import compile_template

INPUT_LIMIT: Final = 1 << 20
"""Bytes of a job's input as JSON (semantics.md, sizes)."""

_CHARACTERS_PER_VALUE = 2


class NotRendered(Exception):
    """A template could not be rendered, or became something that does not fit; the text names its place."""

    @property
    def failure(self) -> Failure:
        """The same as the failure of a step."""
        return Failure(message=str(self), type=TEMPLATE_ERROR)


class Renderer:
    """Renders values for one step; all of them together stay below the limit of an input.

    `check` is called before each text, and may raise to stop.
    """

    def __init__(self, names: Names, check: Callable[[], None]) -> None:
        self.names = names
        self._check = check
        self._left = INPUT_LIMIT

    def render(self, at: Located) -> object:
        """The JSON value with every text in it rendered, native types kept. Raises NotRendered."""
        value = at.node.value
        if isinstance(value, str):
            value = self._render_text(at, value)
        elif isinstance(value, dict):
            return {key: self.render(at.entry(key)) for key in value}
        elif isinstance(value, list):
            return [self.render(item) for item in at.items()]
        self._spend(at, value)
        return value

    def render_mappings(self, mappings: Iterable[Located]) -> dict[str, object]:
        """The mappings rendered and merged, later ones winning. Raises NotRendered."""
        merged: dict[str, object] = {}
        for at in mappings:
            value = self.render(at)
            if not isinstance(value, dict):
                raise NotRendered(f"{place_of(at)}: must be a mapping, not {describe(value)}")
            merged |= value
        return merged

    def _render_text(self, at: Located, text: str) -> object:
        self._check()
        try:
            return compile_template(text).render(self.names.for_text(text))
        except ExpressionError as error:
            raise NotRendered(f"{place_of(at)}: {error.message}") from error

    def _spend(self, at: Located, value: object) -> None:
        try:
            self._left -= weigh(value, self._left, _CHARACTERS_PER_VALUE)
        except ExpressionError as error:
            raise NotRendered(
                f"{place_of(at)}: the rendered values are larger than {INPUT_LIMIT} bytes"
            ) from error


def render_input(
    step: Step, task: Task, names: Names, passed: dict[str, object], check: Callable[[], None]
) -> dict[str, object]:
    """The input of the step's job; `passed` is the data of the transitions, which wins over the step's own.

    Raises NotRendered, and whatever `check` raises to stop.
    """
    renderer = Renderer(names.bind(input=passed), check)
    data = renderer.render_mappings(task.data) | passed
    missing = [name for name in task.expects if name not in data]
    if missing:
        raise NotRendered(
            f"{place_of(step.at)}: the data lacks {', '.join(missing)}, which `assert.expects` names"
        )
    renderer.names = renderer.names.bind(data=data)
    fields = STEP_TYPES[task.kind].fields
    rendered: dict[str, object] = {}
    for key, at in task.fields.items():
        rendered[key] = at.node.value if fields[key] is Shape.CODE else renderer.render(at)
        problem = misfit(fields[key], rendered[key])
        if problem:
            raise NotRendered(f"{place_of(at)}: {problem}")
    job_input = _arrange(task, rendered, data)
    refuse_giant(step.at, job_input)
    return job_input


def place_of(at: Located) -> str:
    """A value's path and place for messages: "fetch.data.url (line 12, column 9)"."""
    return f"{at.path} (line {at.node.place.line}, column {at.node.place.column})"


def _arrange(task: Task, fields: dict[str, object], data: dict[str, object]) -> dict[str, object]:
    """The input as the executor of the kind wants it."""
    job_input = dict(fields)
    if task.kind == "http":
        job_input["method"] = str(fields.get("method", "GET")).upper()
        if task.attempt_timeout is not None:
            job_input["timeout"] = task.attempt_timeout.total_seconds()
    if data or task.kind != "http":
        job_input["data"] = data
    if task.returns:
        job_input["assert"] = {"returns": list(task.returns)}
    return job_input


def refuse_giant(at: Located, value: object) -> None:
    """Raises NotRendered for what has more bytes as JSON than a job's input may have; `at` is what it is for."""
    try:
        weigh(value, INPUT_LIMIT, _CHARACTERS_PER_VALUE)
        is_giant = len(write_value(at, value).encode()) > INPUT_LIMIT
    except ExpressionError:
        is_giant = True
    if is_giant:
        raise NotRendered(f"{place_of(at)}: the data has more than {INPUT_LIMIT} bytes as JSON")


def write_value(at: Located, value: object) -> str:
    """The value as JSON. Raises NotRendered for a number beyond all floats, as a result may hold one (1e999)."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise NotRendered(f"{place_of(at)}: cannot be written as JSON: {error}") from error
