"""The graph that the transitions of a playbook make: who can reach whom, and what makes it unusable.

Steps are numbers here, their places in the text; sets of steps are bit masks, so that a workflow of a thousand
steps stays cheap. Knows nothing of tasks, conditions or running.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph without cycles: for each step the masks of all steps behind it and of all before it, itself not among them.

    `initial` is the step that an execution starts with.
    """

    initial: int
    below: tuple[int, ...]
    above: tuple[int, ...]


def make_graph(initial: int, targets: Sequence[Sequence[int]]) -> Graph:
    """The graph of the steps' targets, which must have no cycle."""
    below, above = [0] * len(targets), [0] * len(targets)
    order = _from_last_to_first(targets)
    for step in order:
        for target in targets[step]:
            below[step] |= 1 << target | below[target]
    for step in reversed(order):
        for target in targets[step]:
            above[target] |= 1 << step | above[step]
    return Graph(initial, tuple(below), tuple(above))


def find_cycles(targets: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """One cycle for every transition that leads back, from the step it leads to until the step it leaves."""
    cycles: list[tuple[int, ...]] = []
    path: list[int] = []
    is_on_path = [False] * len(targets)
    is_finished = [False] * len(targets)
    pending: list[Iterator[int]] = []
    for root in range(len(targets)):
        pending.append(iter((root,)))
        while pending:
            step = next(pending[-1], None)
            if step is None:
                pending.pop()
                if path:
                    left = path.pop()
                    is_on_path[left], is_finished[left] = False, True
            elif is_on_path[step]:
                cycles.append(tuple(path[path.index(step) :]))
            elif not is_finished[step]:
                path.append(step)
                is_on_path[step] = True
                pending.append(iter(dict.fromkeys(targets[step])))
    return cycles


def find_unreachable(initial: int, targets: Sequence[Sequence[int]]) -> list[int]:
    """The steps that no path from the initial one leads to, in their order."""
    reached = {initial}
    pending = [initial]
    while pending:
        new = set(targets[pending.pop()]) - reached
        reached |= new
        pending.extend(new)
    return [step for step in range(len(targets)) if step not in reached]


def members(mask: int) -> Iterator[int]:
    """The steps of a mask in their order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _from_last_to_first(targets: Sequence[Sequence[int]]) -> list[int]:
    """Every step after all of its targets (Kahn's algorithm from the ends)."""
    sources: list[list[int]] = [[] for _ in targets]
    open_targets = [len(set(following)) for following in targets]
    for step, following in enumerate(targets):
        for target in set(following):
            sources[target].append(step)
    order = [step for step, count in enumerate(open_targets) if count == 0]
    for step in order:
        for source in sources[step]:
            open_targets[source] -= 1
            if open_targets[source] == 0:
                order.append(source)
    return order
