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
_MAKES_ROUTINE = re.compile(r"create (or replace )?(function|procedure) ")
_LONGEST_BEGINNING = len("create or replace procedure ")
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
    """The statements of a PostgreSQL text, without their semicolons; comments alone are no statement."""
    statements: list[str] = []
    start = place = 0
    says_something = False
    nesting = _Nesting()
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
                nesting.take(token.group())
            case "end" if not nesting.is_open:
                if says_something:
                    statements.append(text[start : token.start()].strip())
                start, says_something, nesting = place, False, _Nesting()
    if says_something:
        statements.append(text[start:].strip())
    return statements


class _Nesting:
    """Where a semicolon is inside of a statement: in parentheses, and in a body in the SQL standard's form, BEGIN ATOMIC … END.

    As psql tells it (psqlscan.l): only CREATE [OR REPLACE] FUNCTION or PROCEDURE has such a body, and CASE … END may stand in it.
    """

    def __init__(self) -> None:
        self._beginning = ""
        self._parentheses = 0
        self._blocks = 0

    @property
    def is_open(self) -> bool:
        """Whether a semicolon here ends no statement."""
        return self._parentheses > 0 or self._blocks > 0

    def take(self, token: str) -> None:
        """The statement goes on with this word, quoted text or single character."""
        word = token.lower()
        if len(self._beginning) < _LONGEST_BEGINNING:
            self._beginning += word + " "
        if word == "(":
            self._parentheses += 1
        elif word == ")":
            self._parentheses = max(0, self._parentheses - 1)
        elif self._parentheses or not _MAKES_ROUTINE.match(self._beginning):
            return
        elif word == "begin" or (word == "case" and self._blocks):
            self._blocks += 1
        elif word == "end":
            self._blocks = max(0, self._blocks - 1)


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
