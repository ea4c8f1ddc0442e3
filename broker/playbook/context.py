"""What templates and conditions see: names for JSON values, and nothing else (no environment, no objects).

    workload, work, context   the execution's workload; each of its keys is a name too
    NAME of an earlier step   its data: `result.data` if its result is an object that has it, else its result;
                              None if it did not run. `NAME.data` and `NAME.result` are that data as well, unless it
                              has such a key itself. A step's name wins over a key of the workload.
    results                   whole results of the earlier steps by name, for names that are no identifiers
    execution_id
    input                     in a step's own fields: the data that transitions passed to it
    data                      in a step's own fields: its data, what was passed included
    result, data              in `next` and `result`: what the step itself returned, whole, and its data

Earlier steps are those from which a way leads to the step: all of them have ended before it starts, so that what a
template sees never depends on which of two branches was faster, and is the same whenever it is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import nodes

from broker.playbook.graph import members
from broker.playbook.model import Playbook
from broker.playbook.progress import UNREAD, Outcome, StepRecord
from broker.policy.grammar import has_expressions, parse_text

_ALIASES = ("data", "result")
_CACHED_TEXTS = 512


@dataclass(frozen=True, slots=True)
class Names:
    """Values by name; `steps` are the names that stand for steps."""

    values: Mapping[str, object]
    steps: frozenset[str]

    def bind(self, **values: object) -> "Names":
        """The same with more names; those of steps cannot be hidden, they are never reserved ones."""
        return Names({**self.values, **values}, self.steps)

    def for_text(self, text: str) -> Mapping[str, object]:
        """The values for one template: where it asks for `NAME.data` of a step, the step answers to that too."""
        asked = _aliased(text) & self.steps if has_expressions(text) else None
        if not asked:
            return self.values
        return {**self.values, **{name: _with_aliases(self.values[name]) for name in asked}}


def data_of(result: object) -> object:
    """What a step's name stands for: `result.data` if the result is an object that has it, else the result."""
    return result["data"] if isinstance(result, dict) and "data" in result else result


def names_before(
    playbook: Playbook,
    step: int,
    execution_id: int,
    workload: Mapping[str, object],
    ended: Mapping[str, StepRecord],
) -> Names:
    """What is known when a step starts, but for results that were not read: nothing may ask for those."""
    values: dict[str, object] = dict(workload)
    results: dict[str, object] = {}
    steps: set[str] = set()
    for earlier in members(playbook.graph.above[step]):
        name, record = playbook.steps[earlier].name, ended.get(playbook.steps[earlier].name)
        result = record.result if record is not None and record.outcome == Outcome.DONE else None
        if result is UNREAD or (result is None and playbook.steps[earlier].is_router):
            continue
        values[name] = data_of(result)
        results[name] = result
        steps.add(name)
    values |= dict.fromkeys(("workload", "work", "context"), workload)
    values |= {"results": results, "execution_id": execution_id}
    return Names(values, frozenset(steps))


def names_after(before: Names, record: StepRecord) -> Names:
    """What is known when a step has ended: what was known before it, and its own result if it was read."""
    if record.result is UNREAD:
        return before
    data = data_of(record.result)
    results = before.values["results"]
    assert isinstance(results, dict)
    values = {
        **before.values,
        record.step: data,
        "results": {**results, record.step: record.result},
        "result": record.result,
        "data": data,
    }
    return Names(values, before.steps | {record.step})


def _with_aliases(value: object) -> object:
    if value is None:
        return None
    aliases = dict.fromkeys(_ALIASES, value)
    return {**aliases, **value} if isinstance(value, dict) else aliases


@lru_cache(maxsize=_CACHED_TEXTS)
def _aliased(text: str) -> frozenset[str]:
    """The names whose member `data` or `result` a template asks for."""
    return frozenset(
        member.node.name
        for part in parse_text(text)
        if not isinstance(part, str)
        for member in _members_in(part)
        if isinstance(member.node, nodes.Name) and member.attr in _ALIASES
    )


def _members_in(part: nodes.Expr) -> list[nodes.Getattr]:
    found = [part] if isinstance(part, nodes.Getattr) else []
    return [*found, *part.find_all(nodes.Getattr)]
