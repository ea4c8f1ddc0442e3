"""From the text of a playbook to a Playbook that can run, or to every fault in it at once.

Owns the top level and what only the whole workflow shows: steps named twice, unknown targets, ways back, steps that
nothing leads to.
"""

from collections.abc import Sequence
from typing import Final

from broker.playbook.code import check_code
from broker.playbook.document import Faults, Located, PlaybookInvalid
from broker.playbook.fields import PATH_LIMIT, is_list, is_mapping, read_text, refuse_unknown
from broker.playbook.graph import find_cycles, find_unreachable, make_graph
from broker.playbook.model import Playbook, Step
from broker.playbook.reading import read_document
from broker.playbook.steps import read_step
from broker.playbook.tasks import read_workbook
from broker.policy.grammar import suggest

API_VERSION: Final = "noetl.io/v1"
KIND: Final = "Playbook"
STEPS_LIMIT: Final = 1000

_KEYS = ("apiVersion", "kind", "metadata", "workload", "workbook", "workflow", "steps", "path", "name")


def parse_playbook(text: str, *, is_new: bool = False) -> Playbook:
    """The playbook of a YAML text; raises PlaybookInvalid with all its faults, in the order of the text.

    One that `is_new` has its Python checked too; one that is registered stays good under another version of Python.
    """
    faults = Faults()
    root = read_document(text, faults)
    if root is None:
        faults.raise_if_any()
        raise AssertionError("a document that could not be read has a fault")
    at = Located("", root)
    if not is_mapping(at, faults):
        faults.raise_if_any()
    refuse_unknown(at, _KEYS, faults)
    _check_constant(at, "apiVersion", API_VERSION, faults)
    _check_constant(at, "kind", KIND, faults)
    path, name = _read_path_and_name(at, faults)
    workload = _read_workload(at, faults)
    steps = _read_steps(at, faults)
    targets = _find_targets(steps, faults)
    initial = next((number for number, step in enumerate(steps) if step.name == "start"), 0)
    _check_graph(steps, initial, targets, faults)
    if is_new:
        check_code(at, faults)
    faults.raise_if_any()
    return Playbook(path, name, workload, tuple(steps), make_graph(initial, targets))


def _check_constant(at: Located, key: str, expected: str, faults: Faults) -> None:
    if key in at and at.node.entries[key].value != expected:
        faults.add(at.entry(key), f"must be {expected}")


def _read_path_and_name(at: Located, faults: Faults) -> tuple[str, str]:
    """The key in the catalog, the first of metadata.path, path, metadata.name and name; and the name to show."""
    found: dict[str, str] = {}
    holders = [at]
    if "metadata" in at and is_mapping(at.entry("metadata"), faults):
        holders.insert(0, at.entry("metadata"))
    for key in ("path", "name"):
        for holder in holders:
            if key in holder and (text := read_text(holder.entry(key), faults, PATH_LIMIT)):
                found.setdefault(key, text)
    if not found and not any(key in holder for holder in holders for key in ("path", "name")):
        faults.add(at, "a playbook needs metadata.path or metadata.name, its key in the catalog")
    path = found.get("path", found.get("name", ""))
    return path, found.get("name", path)


def _read_workload(at: Located, faults: Faults) -> dict[str, object]:
    if "workload" not in at or at.node.entries["workload"].value is None:
        return {}
    entry = at.entry("workload")
    value = entry.node.value
    return value if is_mapping(entry, faults) and isinstance(value, dict) else {}


def _read_steps(at: Located, faults: Faults) -> list[Step]:
    """The steps whose names can be used, the first of each name."""
    has_workbook = "workbook" in at and at.node.entries["workbook"].value is not None
    tasks = read_workbook(at.entry("workbook"), faults) if has_workbook else {}
    keys = [key for key in ("workflow", "steps") if key in at]
    if len(keys) != 1:
        message = (
            "`steps` is another name for `workflow`: give one" if keys else "a playbook needs a workflow"
        )
        faults.add(at, message)
        return []
    workflow = at.entry(keys[0])
    if not is_list(workflow, faults):
        return []
    items = workflow.items()
    if not 0 < len(items) <= STEPS_LIMIT:
        faults.add(workflow, f"must have 1 to {STEPS_LIMIT} steps, not {len(items)}")
        return []
    steps: dict[str, Step] = {}
    for item in items:
        step = read_step(item, tasks, faults)
        if step is not None and step.name in steps:
            first = steps[step.name].at.node.place.line
            faults.add(item, f"there are two steps named '{step.name}': the first is in line {first}")
        elif step is not None:
            steps[step.name] = step
    return list(steps.values())


def _find_targets(steps: Sequence[Step], faults: Faults) -> list[list[int]]:
    """For each step the numbers of the steps that may follow it; unknown ones are faults."""
    numbers = {step.name: number for number, step in enumerate(steps)}
    targets: list[list[int]] = []
    for step in steps:
        known = [item for item in step.transitions if item.target in numbers]
        for item in step.transitions:
            if item.target not in numbers:
                at = item.at.entry("step") if "step" in item.at else item.at
                faults.add(at, f"there is no step '{item.target}': {suggest(item.target, numbers)}")
        targets.append([numbers[item.target] for item in known])
    return targets


def _check_graph(steps: Sequence[Step], initial: int, targets: list[list[int]], faults: Faults) -> None:
    for cycle in find_cycles(targets):
        names = [steps[number].name for number in cycle]
        back = next(item for item in steps[cycle[-1]].transitions if item.target == names[0])
        way = " -> ".join([*names, names[0]])
        faults.add(back.at, f"a step runs once, so no way may lead back: {way}")
    if faults or not steps:
        return
    for number in find_unreachable(initial, targets):
        step = steps[number]
        # A bare `end` that nothing names only marks the end of the text; it would do nothing if it were reached.
        if step.name != "end" or step.task is not None or step.result is not None:
            place = step.at.node.place
            faults.add_at(
                place, f"workflow[{number}]", f"nothing leads from '{steps[initial].name}' to this step"
            )


__all__ = ["PlaybookInvalid", "parse_playbook"]
