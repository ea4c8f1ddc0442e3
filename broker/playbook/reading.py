"""Reads the text of a playbook into nodes: bounded YAML, one document, JSON values only.

Owns the limits of a text and how syntax errors are told. What YAML's events become is `tree`'s business, and what
any key means is not known here.
"""

import re
from typing import Final

import yaml

from broker.playbook.document import Faults, Node, Place
from broker.playbook.tree import Stop, TreeBuilder

TEXT_LIMIT: Final = 1 << 20

# libyaml's parser is 25 times faster (measured 2026-11: 0.12 s against 3.2 s per MiB); both give the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A quote opens a text only where a value may begin; one that is left open goes on to the end of its line.
_QUOTED_OR_COMMENT = re.compile(
    r"""(?<![^\s\[{,:])(?:"(?:[^"\\]|\\.)*(?:"|$)|'(?:[^']|'')*(?:'|$))|(?<!\S)#.*"""
)
# Within a bare text a template is none of YAML's business; where a value begins, it is taken for a mapping.
_BARE_TEMPLATE = re.compile(r"(?:^|[:\-?]\s|[\[,])\s*\{\{")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_document(text: str, faults: Faults) -> Node | None:
    """The only document of the text; None where there is none or it cannot be read to its end. Faults are recorded."""
    start = Place(1, 1)
    if len(text) > TEXT_LIMIT or len(text.encode(errors="replace")) > TEXT_LIMIT:
        faults.add_at(start, "", f"the text is larger than {TEXT_LIMIT} bytes")
        return None
    lines = text.splitlines()
    if found := _UNPRINTABLE.search(text):
        before = text[: found.start()].splitlines() or [""]
        place = Place(len(before), len(before[-1]) + 1)
        faults.add_at(place, "", f"the character U+{ord(found.group()):04X} is not allowed")
        return None
    builder = TreeBuilder(lines, faults)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except Stop:
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else start
        context = f", {error.context}" if error.context else ""
        faults.add_at(place, "", f"not valid YAML: {error.problem}{context}{_hint(lines, error)}")
        return None
    if builder.root is None:
        faults.add_at(start, "", "the text is empty")
    return builder.root


def _hint(lines: list[str], error: yaml.MarkedYAMLError) -> str:
    """What most often causes a syntax error, where one of the lines that the parser names has a template without quotes."""
    marks = (error.problem_mark, error.context_mark)
    named = [lines[mark.line] for mark in marks if mark is not None and mark.line < len(lines)]
    has_bare = any(_BARE_TEMPLATE.search(_QUOTED_OR_COMMENT.sub("''", line)) for line in named)
    return "; a template needs quotes around it" if has_bare else ""
