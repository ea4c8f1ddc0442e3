"""Which results must be read before an execution can go on: those that templates ask for, told from their texts alone.

Results may be many and large, and few of them are asked for.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from jinja2 import nodes

from broker.playbook.document import Located
from broker.playbook.graph import members
from broker.playbook.model import Playbook, Step, Transition
from broker.playbook.progress import UNREAD, StepRecord, UnreadResults
from broker.playbook.rendering import NotRendered, place_of
from broker.policy.expression import Condition
from broker.policy.grammar import has_expressions, parse_text

RESULTS_LIMIT: Final = 32 << 20
"""Bytes of results, as JSON, that one step may ask for together; a condition too."""

_ALL_RESULTS = "results"
_OWN_RESULT = frozenset({"result", "data"})
_CACHED_TEXTS = 512


class Needs:
    """The results that one call of `advance` asks for; `records` are those of the steps, as they become known."""

    def __init__(self, playbook: Playbook, records: Mapping[str, StepRecord]) -> None:
        self._playbook = playbook
        self._records = records
        self._numbers = {step.name: number for number, step in enumerate(playbook.steps)}
        self._unread: set[str] = set()

    def of_condition(self, step: int, condition: Condition) -> set[int]:
        """The steps whose results a condition of a step's `next` asks for."""
        return self._seen(step, _names_in(condition.text), after=True)

    def to_start(self, target: int, sources: Iterable[tuple[Step, Transition]]) -> set[int]:
        """The steps whose results a step's templates ask for, and what the transitions from `sources` pass to it."""
        step = self._playbook.steps[target]
        rendered = step.task.templates if step.task is not None else filter(None, [step.result])
        needed = self._seen(target, _names_asked(rendered), after=False)
        for source, item in sources:
            number = self._numbers[source.name]
            needed |= self._seen(number, _names_asked(item.data), after=True)
            if source.is_router:
                needed.add(number)
        return needed

    def to_complete(self, step: int, result: Located | None) -> set[int]:
        """The steps that an execution's result is made of: what the step's `result` asks for, else the step itself."""
        return {step} if result is None else self._seen(step, _names_asked([result]), after=True)

    def are_met(self, at: Located, steps: Iterable[int]) -> bool:
        """Whether the results of these steps were read; else `ask` will ask for them.

        Raises NotRendered where they are too large together.
        """
        names = (self._playbook.steps[number].name for number in steps)
        records = [self._records[name] for name in names if name in self._records]
        if sum(record.result_bytes for record in records) > RESULTS_LIMIT:
            raise NotRendered(
                f"{place_of(at)}: the results that it asks for have more than {RESULTS_LIMIT} bytes together"
            )
        unread = {record.step for record in records if record.result is UNREAD}
        self._unread |= unread
        return not unread

    def ask(self) -> None:
        """Raises UnreadResults if anything was needed that was not read."""
        if self._unread:
            raise UnreadResults(frozenset(self._unread))

    def _seen(self, number: int, asked: frozenset[str], *, after: bool) -> set[int]:
        """The steps that names stand for in a template of a step, before it has started or after it has ended."""
        visible = self._playbook.graph.above[number]
        if after:
            visible |= 1 << number
        if _ALL_RESULTS in asked:
            return set(members(visible))
        named = {self._numbers[name] for name in asked if name in self._numbers}
        seen = {step for step in named if visible >> step & 1}
        return seen | {number} if after and asked & _OWN_RESULT else seen


def _names_asked(values: Iterable[Located]) -> frozenset[str]:
    return frozenset().union(*(_names_in(text) for at in values for text in _texts(at)))


def _texts(at: Located) -> Iterator[str]:
    if isinstance(at.node.value, str):
        yield at.node.value
    for part in at.parts():
        yield from _texts(part)


def _names_in(text: str) -> frozenset[str]:
    """The top-level names in a text; of `results.NAME` and `results['NAME']` the NAME."""
    return _names_in_expressions(text) if has_expressions(text) else frozenset()


@lru_cache(maxsize=_CACHED_TEXTS)
def _names_in_expressions(text: str) -> frozenset[str]:
    return frozenset(name for part in parse_text(text) if not isinstance(part, str) for name in _names(part))


def _names(node: nodes.Node) -> Iterator[str]:
    match node:
        case nodes.Getattr(node=nodes.Name(name="results"), attr=str() as member):
            yield member
        case nodes.Getitem(node=nodes.Name(name="results"), arg=nodes.Const(value=str() as member)):
            yield member
        case nodes.Name():
            yield node.name
        case _:
            for child in node.iter_child_nodes():
                yield from _names(child)
