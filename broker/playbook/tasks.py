"""Reads what a step runs: the fields of its type, its data, and how its job is queued and retried.

The same for a step with a type and for a task of the workbook; a step of type `workbook` is made one with the task
that it names, and what the step says itself wins. Must not know how steps follow each other.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from broker.playbook.document import Faults, Located, describe
from broker.playbook.fields import (
    NAME_LIMIT,
    is_list,
    is_mapping,
    read_identifier,
    read_names,
    read_priority,
    read_text,
    read_timeout,
    refuse_unknown,
)
from broker.playbook.model import Task
from broker.playbook.step_types import (
    DATA_KEYS,
    NOT_YET_KEYS,
    NOT_YET_TYPES,
    ROUTER_TYPES,
    STEP_TYPES,
    WORKBOOK,
    Shape,
    StepType,
    misfit,
)
from broker.playbook.templates import check_templates, is_template, read_retry
from broker.policy.grammar import suggest

JOB_KEYS: Final = frozenset({"queue", "priority", "timeout", "dependency", "retry"})

_TASK_KEYS = frozenset({"name", "type", "desc", "assert"}) | JOB_KEYS
_ASSERT_KEYS = ("expects", "returns")


def read_workbook(at: Located, faults: Faults) -> dict[str, Task | None]:
    """The reusable tasks by name; None stands for one that has faults of its own."""
    tasks: dict[str, Task | None] = {}
    if not is_list(at, faults):
        return tasks
    for item in at.items():
        if not is_mapping(item, faults):
            continue
        if "name" not in item:
            faults.add(item, "a task of the workbook needs a name")
            continue
        name = read_text(item.entry("name"), faults, NAME_LIMIT)
        if name in tasks:
            faults.add(item.entry("name"), f"there are two tasks named '{name}'")
        elif name is not None:
            tasks[name] = _read_workbook_task(item, name, faults)
    return tasks


def read_task(at: Located, label: str, common: Collection[str], faults: Faults) -> Task | None:
    """The task of a mapping with a `type` that runs something; None if it has faults.

    `common` are the keys that the mapping may have besides those of a task; `label` names it in errors of rendering.
    """
    kind = at.node.entries["type"].value
    step_type = STEP_TYPES.get(kind) if isinstance(kind, str) else None
    if step_type is None or not isinstance(kind, str):
        refuse_type(at, faults)
        # What every type has is read all the same, so that its faults are not told only next time.
        read_data(at, label, DATA_KEYS, faults)
        read_job_keys(at, faults)
        return None
    refuse_keys(at, frozenset(common) | JOB_KEYS | step_type.keys | set(step_type.data_keys), faults)
    for group in step_type.needs:
        _check_need(at, kind, group, faults)
    fields = _read_fields(at, label, step_type, faults)
    data = read_data(at, label, step_type.data_keys, faults)
    return Task(kind, fields, data, **read_job_keys(at, faults))


def resolve_workbook(
    at: Located, label: str, tasks: Mapping[str, Task | None], common: Collection[str], faults: Faults
) -> Task | None:
    """The task of a step of type `workbook`: the one it names, with what the step itself says on top."""
    refuse_keys(at, frozenset(common) | JOB_KEYS | set(DATA_KEYS), faults)
    data = read_data(at, label, DATA_KEYS, faults)
    own = read_job_keys(at, faults)
    if "name" not in at:
        faults.add(at, "a step of type workbook needs `name`, the task of the workbook that it runs")
        return None
    name = read_text(at.entry("name"), faults)
    if name is None:
        return None
    if name not in tasks:
        known = f": {suggest(name, tasks)}" if tasks else ""
        faults.add(at.entry("name"), f"the workbook has no task '{name}'{known}")
        return None
    task = tasks[name]
    return replace(task, data=(*task.data, *data), **own) if task else None


def read_job_keys(at: Located, faults: Faults) -> dict[str, Any]:
    """How the job is queued and retried, as fields of a Task: only those that are given."""
    own: dict[str, Any] = {}
    for key, name, read in (
        ("queue", "queue", read_identifier),
        ("priority", "priority", read_priority),
        ("dependency", "dependency", read_identifier),
        ("timeout", "attempt_timeout", read_timeout),
        ("retry", "retry", read_retry),
    ):
        if key in at:
            own[name] = read(at.entry(key), faults)
    return own


def read_data(at: Located, label: str, keys: Collection[str], faults: Faults) -> tuple[Located, ...]:
    """The mappings that make up the data, in rising precedence; a template may become one when it is rendered."""
    data: list[Located] = []
    for key in keys:
        if key not in at or at.node.entries[key].value is None:
            continue
        entry = at.entry(key)
        if not isinstance(entry.node.value, dict) and not is_template(entry.node.value):
            faults.add(entry, f"must be a mapping, not {describe(entry.node.value)}")
        check_templates(entry, faults)
        data.append(Located(f"{label}.{key}", entry.node))
    return tuple(data)


def refuse_type(at: Located, faults: Faults) -> None:
    """Record why the `type` of a mapping is none that can run."""
    kind = at.node.entries["type"].value
    if isinstance(kind, str) and kind in NOT_YET_TYPES:
        faults.add_not_yet(at, "type", f"the type '{kind}'")
        return
    known = (*STEP_TYPES, WORKBOOK, *ROUTER_TYPES)
    hint = suggest(kind, known) if isinstance(kind, str) else f"known are {', '.join(known)}"
    shown = f" '{kind}'" if isinstance(kind, str) else ""
    faults.add(at.entry("type"), f"unknown type{shown}: {hint}")


def refuse_keys(at: Located, known: Collection[str], faults: Faults) -> None:
    """Record every key that is not known here, with what it is for or what was probably meant."""
    for key in at.node.entries:
        owners = [name for name, step_type in STEP_TYPES.items() if key in step_type.keys]
        if key in known:
            continue
        if key in NOT_YET_KEYS:
            faults.add_not_yet(at, key, f"`{key}`")
        elif owners:
            faults.add_key(at, key, f"`{key}` is only for steps of type {_alternatives(owners)}")
        elif key in JOB_KEYS or key in DATA_KEYS:
            faults.add_key(at, key, f"`{key}` needs a type: a step without one runs nothing")
        else:
            faults.add_key(at, key, f"unknown key '{key}': {suggest(key, known)}")


def _read_workbook_task(at: Located, name: str, faults: Faults) -> Task | None:
    if "type" not in at:
        faults.add(at, f"the task '{name}' needs a type")
        return None
    kind = at.node.entries["type"].value
    if kind == WORKBOOK or kind in ROUTER_TYPES:
        faults.add(at.entry("type"), f"a task of the workbook cannot be of type '{kind}'")
        return None
    task = read_task(at, f"workbook.{name}", _TASK_KEYS, faults)
    if task is None or "assert" not in at or not is_mapping(at.entry("assert"), faults):
        return task
    asserted = at.entry("assert")
    refuse_unknown(asserted, _ASSERT_KEYS, faults)
    expects, returns = (
        read_names(asserted.entry(key), faults) if key in asserted else () for key in _ASSERT_KEYS
    )
    return replace(task, expects=expects, returns=returns)


def _read_fields(at: Located, label: str, step_type: StepType, faults: Faults) -> dict[str, Located]:
    """The fields of a type by their proper names; what has no template in it must have its shape already."""
    fields: dict[str, Located] = {}
    for key in at.node.entries:
        name = step_type.aliases.get(key, key)
        shape = step_type.fields.get(name)
        if shape is None:
            continue
        entry = at.entry(key)
        problem = misfit(shape, entry.node.value)
        if problem and (shape is Shape.CODE or not is_template(entry.node.value)):
            faults.add(entry, problem)
        if name in fields and not any(key in group for group in step_type.needs):
            faults.add_key(at, key, f"`{key}` is another name for `{name}`: give only one of them")
        if shape is not Shape.CODE:
            check_templates(entry, faults)
        fields[name] = Located(f"{label}.{key}", entry.node)
    return fields


def _check_need(at: Located, kind: str, group: Sequence[str], faults: Faults) -> None:
    """Exactly one key of the group must be there."""
    given = [key for key in at.node.entries if key in group]
    if not given:
        faults.add(at, f"a step of type {kind} needs {_alternatives(group)}")
    for key in given[1:]:
        faults.add_key(at, key, f"there is `{given[0]}` already: give only one of them")


def _alternatives(words: Collection[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
