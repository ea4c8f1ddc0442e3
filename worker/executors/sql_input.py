"""The statements of a SQL step: where they stand in a job's input, and where one ends and the next begins.

Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

from worker.failure import INPUT_INVALID, JobFailed

_KEYS = ("command", "commands", "query")
# Everything in PostgreSQL's lexical structure that may hold a semicolon without ending a statement. Plain
# text last.
_TOKEN = re.compile(
    r"""
      (?P<blank>\s+ | --[^\n]*)
    | (?P<comment>/\*)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\uffff][\w\x80-\uffff]*)?\$)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | [\w$]+ | [^;])
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)
_WORD = re.compile(r"[A-Za-z_]+")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READING = frozenset({"select", "values", "table", "with"})
_CHANGING = frozenset({"insert", "update", "delete", "merge", "into"})
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def commands_of(given: Mapping[str, Any]) -> list[str]:
    """The texts under `command`, `commands` or `query`, each a text or a list of texts.

    Raises JobFailed where there is none.
    """
    texts: list[str] = []
    for key in _KEYS:
        match given.get(key):
            case None:
                continue
            case str(text):
                texts.append(text)
            case list(items) if all(isinstance(item, str) for item in items):
                texts += items
            case _:
                raise JobFailed(f"{key} is neither a text nor a list of texts", type=INPUT_INVALID)
    if not any(text.strip() for text in texts):
        raise JobFailed("a SQL step needs command, commands or query", type=INPUT_INVALID)
    return texts


def statements_of(text: str) -> list[str]:
    """The statements of a PostgreSQL text, without their semicolons; comments alone are no statement.

    Bodies in the SQL standard's form (BEGIN ATOMIC … END) are not understood; quoted bodies are.
    """
    statements: list[str] = []
    start = place = 0
    says_something = False
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:  # cannot be: the last alternative takes any character
            break
        place = token.end()
        match token.lastgroup:
            case "comment":
                place = _end_of_comment(text, place)
            case "dollar":
                closing = text.find(token.group(), place)
                place = len(text) if closing < 0 else closing + len(token.group())
                says_something = True
            case "text":
                says_something = True
            case "end":
                if says_something:
                    statements.append(text[start : token.start()].strip())
                start, says_something = place, False
    if says_something:
        statements.append(text[start:].strip())
    return statements


def only_reads(statement: str) -> bool:
    """Whether a statement surely is a query and nothing else; one that names a change anywhere does not
    count.
    """
    words = [word.lower() for word in _WORD.findall(_COMMENT.sub(" ", statement))]
    return bool(words) and words[0] in _READING and _CHANGING.isdisjoint(words)


def _end_of_comment(text: str, place: int) -> int:
    """Where the comment that was opened before `place` ends; PostgreSQL's nest."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(text, place):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)
