"""What a playbook is once it is read: steps, their tasks and the transitions between them.

Plain values without behaviour, but for what follows from them at once. Reading and running them is done elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from broker.playbook.document import Located
from broker.playbook.graph import Graph
from broker.playbook.step_types import STEP_TYPES, Shape
from broker.policy.expression import Condition
from broker.policy.retry_policy import RetryPolicy

DEFAULT_QUEUE: Final = "default"
DEFAULT_ATTEMPT_TIMEOUT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Task:
    """What one step runs as a job: a workbook task and its step are already one.

    `fields` are the executor's own by key, `data` mappings in rising precedence; both are templates until the step
    starts, but for python's code. `expects` names the data that must be there, `returns` is for the worker to check.
    """

    kind: str
    fields: Mapping[str, Located]
    data: tuple[Located, ...] = ()
    expects: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retry: RetryPolicy | None = None
    attempt_timeout: timedelta | None = None
    dependency: str | None = None

    @property
    def templates(self) -> tuple[Located, ...]:
        """All values that are rendered when the step starts."""
        shapes = STEP_TYPES[self.kind].fields
        return (*self.data, *(at for key, at in self.fields.items() if shapes[key] is not Shape.CODE))


@dataclass(frozen=True, slots=True)
class Transition:
    """One item of `next`: the step that follows, under which condition (None: unconditional), and the data it gets.

    `at` is where the item stands in the document, `path` how messages call it ("fetch.next[1]").
    """

    target: str
    at: Located
    path: str
    when: Condition | None = None
    data: tuple[Located, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the workflow; without a task it is a router, which runs nothing and passes on what it gets."""

    name: str
    at: Located
    task: Task | None = None
    transitions: tuple[Transition, ...] = ()
    result: Located | None = None

    @property
    def is_router(self) -> bool:
        """Whether the step runs nothing."""
        return self.task is None


@dataclass(frozen=True, slots=True)
class Playbook:
    """A workflow that can run: every name in it is known, and nothing leads back.

    `path` is its key in the catalog, `workload` the default inputs, `steps` are in the order of the text.
    """

    path: str
    name: str
    workload: Mapping[str, object]
    steps: tuple[Step, ...]
    graph: Graph = field(repr=False)
