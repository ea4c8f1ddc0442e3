"""Makes a tree of nodes from YAML's events.

Owns what is refused of YAML: second documents, duplicate keys, foreign tags, aliases that grow, depth. Works on events
instead of PyYAML's own nodes: depth and size are bounded before anything recurses, and keys know their places too.
"""

from dataclasses import dataclass, field
from typing import Final

import yaml

from broker.playbook.document import Faults, Node, Place
from broker.playbook.scalars import TAG, ScalarInvalid, resolve

DEPTH_LIMIT: Final = 64
VALUE_WEIGHT: Final = 32
# A value weighs 32 and its characters, after aliases are expanded: 130 000 values take a second to read (2026-11).
WEIGHT_LIMIT: Final = 4 << 20

_MERGE = "<<"


class Stop(Exception):
    """What follows cannot be read."""


@dataclass(slots=True)
class _Open:
    """A list or a mapping whose end has not been read yet."""

    place: Place
    path: str
    is_mapping: bool
    anchor: str | None
    weight_before: int
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    awaits_value: bool = False
    key: str | None = None  # None while a value is awaited: the key was refused, so its value is dropped

    def path_of_next(self) -> str:
        """The path of the value that comes next."""
        if not self.is_mapping:
            return f"{self.path}[{len(self.items)}]"
        return ".".join(part for part in (self.path, self.key) if part)

    def close(self) -> Node:
        """The finished collection; merged mappings fill in only what it does not have itself."""
        if not self.is_mapping:
            return Node(self.place, [item.value for item in self.items], items=tuple(self.items))
        for mapping in self.merged:
            for key, node in mapping.entries.items():
                self.entries.setdefault(key, node)
                self.keys.setdefault(key, mapping.keys[key])
        value = {key: node.value for key, node in self.entries.items()}
        return Node(self.place, value, entries=self.entries, keys=self.keys)


class TreeBuilder:
    """Builds the tree from events, with a stack of its own: the depth of a text never becomes the depth of calls."""

    def __init__(self, lines: list[str], faults: Faults) -> None:
        self.root: Node | None = None
        self._lines = lines
        self._faults = faults
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._weight = 0

    def take(self, event: yaml.Event) -> None:
        """Add what one event says; raises Stop where reading on makes no sense."""
        match event:
            case yaml.DocumentStartEvent() if self.root is not None:
                self._fault(_place(event), "a playbook is one document: what follows `---` is not allowed")
                raise Stop
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.AliasEvent():
                self._take_alias(event)
            case yaml.CollectionStartEvent():
                self._take_start(event)
            case yaml.CollectionEndEvent():
                self._take_end()

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        is_plain = event.implicit[0]
        parent = self._open[-1] if self._open else None
        self._add_weight(VALUE_WEIGHT + len(event.value), event)
        if parent is not None and parent.is_mapping and not parent.awaits_value:
            self._take_key(parent, event, is_merge=is_plain and event.value == _MERGE)
            return
        try:
            value = resolve(event.value, event.tag, is_plain)
        except ScalarInvalid as error:
            self._fault(_place(event), str(error))
            value = None
        text_at = _text_place(event, self._lines) if isinstance(value, str) else None
        node = Node(_place(event), value, text_at=text_at)
        if event.anchor:
            self._anchors[event.anchor] = (node, VALUE_WEIGHT + len(event.value))
        self._put(node)

    def _take_key(self, parent: _Open, event: yaml.ScalarEvent, is_merge: bool) -> None:
        """A key is the text as written, so `200: ok` has the key "200", as JSON would have it."""
        parent.key, parent.awaits_value = event.value, True
        if is_merge:
            return
        place = _place(event)
        if parent.key in parent.keys:
            first = parent.keys[parent.key]
            self._fault(place, f"the key '{parent.key}' is given twice: first in line {first.line}")
            parent.key = None
        elif "\x00" in event.value:
            self._fault(place, "a key may not hold NUL")
            parent.key = None
        else:
            parent.keys[parent.key] = place

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            self._fault(_place(event), f"the alias *{event.anchor} names no anchor that ends before it")
            known = (Node(_place(event), None), 0)
        self._add_weight(known[1], event)
        self._put(known[0])

    def _take_start(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= DEPTH_LIMIT:
            self._fault(_place(event), f"values are nested deeper than {DEPTH_LIMIT}")
            raise Stop
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        allowed = f"{TAG}{'map' if is_mapping else 'seq'}"
        if event.tag not in (None, "!", allowed):
            self._fault(_place(event), f"the tag {event.tag} is not supported here")
        path = self._open[-1].path_of_next() if self._open else ""
        self._open.append(_Open(_place(event), path, is_mapping, event.anchor, self._weight))
        self._add_weight(VALUE_WEIGHT, event)

    def _take_end(self) -> None:
        closed = self._open.pop()
        node = closed.close()
        if closed.anchor:
            self._anchors[closed.anchor] = (node, self._weight - closed.weight_before)
        self._put(node)

    def _put(self, node: Node) -> None:
        """Hand a finished value to the collection around it."""
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if not parent.is_mapping:
            parent.items.append(node)
        elif not parent.awaits_value:
            line, column = node.place.line, node.place.column
            is_template = self._lines[line - 1][:column].endswith("{{")
            hint = '; a template needs quotes around it: "{{ … }}"' if is_template else ""
            self._fault(node.place, f"a key must be text{hint}")
            parent.key, parent.awaits_value = None, True
        else:
            self._put_value(parent, node)

    def _put_value(self, parent: _Open, node: Node) -> None:
        key, parent.key, parent.awaits_value = parent.key, None, False
        if key is None:
            return
        if key != _MERGE or key in parent.keys:
            parent.entries[key] = node
            return
        mappings = node.items or (node,)
        if all(isinstance(mapping.value, dict) for mapping in mappings):
            parent.merged.extend(mappings)
        else:
            self._fault(node.place, "`<<` merges mappings: give it one, or a list of them")

    def _add_weight(self, weight: int, event: yaml.Event) -> None:
        self._weight += weight
        if self._weight > WEIGHT_LIMIT:
            self._fault(_place(event), "too many values, aliases expanded: a playbook weighs at most 4 MiB")
            raise Stop

    def _fault(self, place: Place, message: str) -> None:
        self._faults.add_at(place, self._open[-1].path_of_next() if self._open else "", message)


def _span(event: yaml.Event) -> tuple[int, int, int, int]:
    """First line and column, last line and column of what the event stands for, counted from 0."""
    start, end = event.start_mark, event.end_mark
    if start is None or end is None:
        raise AssertionError("events of a parsed text have marks")
    return start.line, start.column, end.line, end.column


def _place(event: yaml.Event) -> Place:
    line, column, _, _ = _span(event)
    return Place(line + 1, column + 1)


def _text_place(event: yaml.ScalarEvent, lines: list[str]) -> Place | None:
    """Where the first character of a text is written; None where escapes or folding moved its characters."""
    line, column, end_line, end_column = _span(event)
    texts = event.value.splitlines() or [""]
    if event.style in ("|", ">"):
        for number in range(line + 1, min(end_line + 1, len(lines))):
            if lines[number].strip():
                return _block_place(texts, event.style, number, lines)
        return None
    quote = 1 if event.style in ("'", '"') else 0
    if line != end_line:
        return None
    written = lines[line][column + quote : end_column - quote]
    return Place(line + 1, column + 1 + quote) if written == event.value else None


def _block_place(texts: list[str], style: str, number: int, lines: list[str]) -> Place | None:
    """The place of a block text that begins in line `number` (from 0); a folded one must be a single line."""
    indent = lines[number].find(texts[0])
    if indent < 0 or not texts[0].strip() or (style == ">" and len(texts) > 1):
        return None
    is_whole = lines[number][indent:].rstrip() == texts[0].rstrip()
    return Place(number + 1, indent + 1) if is_whole else None
