"""The document that a playbook's text is read into: values that know their place, and the faults found in them.

Owns places (1-based lines and columns) and the list of faults. Knows nothing of what a playbook means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# A gRPC status travels in headers of at most 8 KiB; a hundred faults are more than anyone reads at once.
FAULTS_LIMIT = 100


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong: where it stands in the text (1-based), its path ("workflow[1].retry"), and what it is.

    `reason` is INVALID, or NOT_SUPPORTED_YET for what the language has and this broker has not.
    """

    line: int
    column: int
    path: str
    message: str
    reason: str = "INVALID"

    def __str__(self) -> str:
        return (
            f"line {self.line}, column {self.column}: {self.path + ': ' if self.path else ''}{self.message}"
        )


class PlaybookInvalid(ValueError):
    """The text is no playbook that can run; `faults` names every reason in the order of the text, never none."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column of the text, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value of the document with its place; `value` is whole, `entries` and `items` are its parts with theirs."""

    place: Place
    value: object
    entries: Mapping[str, "Node"] = field(default_factory=dict)
    keys: Mapping[str, Place] = field(default_factory=dict)
    items: tuple["Node", ...] = ()
    # Where the first character of a text stands; None where the text is not in the document as it is read.
    text_at: Place | None = None

    def place_in_text(self, line: int | None, column: int | None) -> Place:
        """The document's place of a line and column of this text (1-based); the value's own where that is not known."""
        if self.text_at is None or line is None or column is None:
            return self.place
        return Place(self.text_at.line + line - 1, self.text_at.column + column - 1)

    def key_place(self, key: str) -> Place:
        """Where a key of this mapping is written."""
        return self.keys.get(key, self.place)


@dataclass(frozen=True, slots=True)
class Located:
    """A value with the path that messages call it by ("fetch.data.url")."""

    path: str
    node: Node

    def path_of(self, key: str) -> str:
        """The path of a key of this mapping."""
        return f"{self.path}.{key}" if self.path else key

    def entry(self, key: str) -> "Located":
        """The value of a key of this mapping."""
        return Located(self.path_of(key), self.node.entries[key])

    def items(self) -> list["Located"]:
        """The items of this list; none of anything else."""
        return [Located(f"{self.path}[{index}]", item) for index, item in enumerate(self.node.items)]

    def parts(self) -> list["Located"]:
        """The items of this list or the values of this mapping, in their order; none of a scalar."""
        return self.items() or [self.entry(key) for key in self.node.entries]

    def __contains__(self, key: str) -> bool:
        return key in self.node.entries


class Faults:
    """Collects faults while a playbook is read, so that its author sees all of them at once."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    def add(self, at: Located, message: str) -> None:
        """Record a fault of a value."""
        self.add_at(at.node.place, at.path, message)

    def add_key(self, at: Located, key: str, message: str) -> None:
        """Record a fault of a mapping's key, where the key is written."""
        self.add_at(at.node.key_place(key), at.path_of(key), message)

    def add_not_yet(self, at: Located, key: str, what: str) -> None:
        """Record a key that belongs to the language and whose turn has not come."""
        place = at.node.key_place(key)
        message = f"{what} is not supported yet"
        self._found.append(Fault(place.line, place.column, at.path_of(key), message, "NOT_SUPPORTED_YET"))

    def add_at(self, place: Place, path: str, message: str) -> None:
        """Record a fault at a place of the text."""
        self._found.append(Fault(place.line, place.column, path, message))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raises PlaybookInvalid with the faults in the order of the text, the first hundred of them."""
        if self._found:
            raise PlaybookInvalid(tuple(sorted(set(self._found))[:FAULTS_LIMIT]))


def describe(value: object) -> str:
    """What a JSON value is, in words: "a list", "text"."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value:.15g}"
        case str():
            return "text"
        case list():
            return "a list"
    return "a mapping"
