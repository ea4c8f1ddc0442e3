"""Reads one step of a workflow: its name, its task, and the items of its `next`.

Whether the steps that it names exist is not known here.
"""

from collections.abc import Mapping
from typing import Final

from broker.playbook.document import Faults, Located, describe
from broker.playbook.fields import NAME_LIMIT, is_mapping, read_text, refuse_unknown
from broker.playbook.model import Step, Task, Transition
from broker.playbook.step_types import DATA_KEYS, ROUTER_TYPES, WORKBOOK
from broker.playbook.tasks import read_data, read_task, refuse_keys, resolve_workbook
from broker.playbook.templates import check_templates, read_condition

RESERVED_NAMES: Final = frozenset(
    {"workload", "work", "context", "results", "result", "execution_id", "data", "input"}
)
"""What templates call by name already; a step of that name could not be named in them."""

_STEP_KEYS = frozenset({"step", "name", "desc", "type", "next", "result"})
_ITEM_KEYS = ("step", "when", *DATA_KEYS)


def read_step(at: Located, tasks: Mapping[str, Task | None], faults: Faults) -> Step | None:
    """The step, with all its faults recorded; None if it has no usable name."""
    if not is_mapping(at, faults):
        return None
    name = _read_name(at, faults)
    label = name or at.path
    task = _read_task(at, label, tasks, faults)
    if "desc" in at and at.node.entries["desc"].value is not None:
        read_text(at.entry("desc"), faults)
    transitions = _read_next(at, label, faults)
    result = _read_result(at, label, bool(transitions), faults)
    return None if name is None else Step(name, Located(name, at.node), task, transitions, result)


def _read_name(at: Located, faults: Faults) -> str | None:
    """The name is `step`, or `name` where that does not name a task of the workbook."""
    is_workbook = _type_of(at) == WORKBOOK
    if "step" in at and "name" in at and not is_workbook:
        faults.add_key(at, "name", "a step has one name: give `step` alone")
    key = "step" if "step" in at or is_workbook else "name"
    if key not in at:
        faults.add(at, "a step needs a name: `step: NAME`")
        return None
    name = read_text(at.entry(key), faults, NAME_LIMIT)
    if name in RESERVED_NAMES:
        faults.add(at.entry(key), f"a step cannot be named '{name}': templates use that name")
    return name


def _type_of(at: Located) -> object:
    return at.node.entries["type"].value if "type" in at else None


def _read_task(at: Located, label: str, tasks: Mapping[str, Task | None], faults: Faults) -> Task | None:
    """What the step runs; None for a router, and for what has faults."""
    kind = _type_of(at)
    if kind is None or (isinstance(kind, str) and kind in ROUTER_TYPES):
        refuse_keys(at, _STEP_KEYS, faults)
        return None
    if kind == WORKBOOK:
        return resolve_workbook(at, label, tasks, _STEP_KEYS, faults)
    return read_task(at, label, _STEP_KEYS, faults)


def _read_result(at: Located, label: str, has_next: bool, faults: Faults) -> Located | None:
    """The mapping that makes a last step's result, any value with templates in it."""
    if "result" not in at:
        return None
    entry = at.entry("result")
    if has_next:
        faults.add_key(
            at, "result", "`result` is only for a step without `next`: it makes the execution's result"
        )
    check_templates(entry, faults)
    return Located(f"{label}.result", entry.node)


def _read_next(at: Located, label: str, faults: Faults) -> tuple[Transition, ...]:
    """The items of `next`: a name, an item, or a list of both."""
    if "next" not in at:
        return ()
    entry = at.entry("next")
    if entry.node.value is None:
        return ()
    items = entry.items() if isinstance(entry.node.value, list) else [entry]
    prefix = len(at.path)
    read = [_read_item(item, label + item.path[prefix:], faults) for item in items]
    return tuple(transition for transition in read if transition is not None)


def _read_item(at: Located, label: str, faults: Faults) -> Transition | None:
    if isinstance(at.node.value, str):
        name = read_text(at, faults)
        return None if name is None else Transition(name, at, label)
    if not isinstance(at.node.value, dict):
        faults.add(at, f"must be the name of a step or {{step, when, data}}, not {describe(at.node.value)}")
        return None
    branches = [key for key in ("then", "else") if key in at]
    for key in branches:
        faults.add_key(
            at, key, f"`{key}` is not supported: write one item for each step, {{when, step}} or {{step}}"
        )
    refuse_unknown(at, (*_ITEM_KEYS, *branches), faults)
    when = read_condition(at.entry("when"), faults) if "when" in at else None
    data = read_data(at, label, DATA_KEYS, faults)
    if "step" not in at:
        if not branches:
            faults.add(at, "an item of `next` needs `step`, the name of the step that follows")
        return None
    target = read_text(at.entry("step"), faults)
    return None if target is None else Transition(target, at, label, when, data)
