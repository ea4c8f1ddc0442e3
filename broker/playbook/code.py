"""Checks the Python of a new playbook's steps without running any of it: does it parse, and is there a `main`?

Owns the bounds within which it looks; what is beyond them, or too deep for the parser, is left to the worker to tell.
Must not refuse what a worker could run: a `main` may be bound in any way.
"""

import ast
import warnings
from threading import Lock
from typing import Final

from broker.playbook.document import Faults, Located

# The parser holds the interpreter meanwhile: some 30 ms for the worst text found of this length, a tuple of names (measured 2026-11,
# Python 3.11).
CHECKED_CHARACTERS: Final = 16_384

# Which warnings are shown is a setting of the whole process.
_parsing = Lock()


def check_code(at: Located, faults: Faults) -> None:
    """Records a fault for every `code` of the document's python steps and tasks that cannot work."""
    for key in ("workbook", "workflow", "steps"):
        for item in at.entry(key).items() if key in at else ():
            entries = item.node.entries
            if "type" in entries and entries["type"].value == "python" and "code" in entries:
                _check(item.entry("code"), faults)


def _check(at: Located, faults: Faults) -> None:
    code = at.node.value
    if not isinstance(code, str) or not code.strip() or len(code) > CHECKED_CHARACTERS:
        return
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except SyntaxError as error:
        place = at.node.place_in_text(error.lineno, error.offset or 1)
        faults.add_at(place, at.path, f"the code is no Python: {error.msg}")
    except (ValueError, RecursionError, MemoryError):
        return
    else:
        if not any(_may_bind_main(node) for node in ast.walk(tree)):
            faults.add(at, "the code defines no function main, which is what a step runs")


def _may_bind_main(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == "main"
        case ast.Name():
            return node.id == "main"
        case ast.alias():
            return (node.asname or node.name) in {"main", "*"}
        case ast.Constant():  # globals()["main"] = …
            return node.value == "main"
        case _:
            return False
