"""How things look: tables and coloured lines on a terminal, plain aligned text in a pipe, JSON on request.

Owns every byte that goes to standard output, and the only use of rich. Must not know what a job is.
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

NOTHING = "-"
_GAP = "  "
# What a column of prose keeps on a terminal that is too narrow for the table.
_NARROWEST_PROSE = 20
_LARGEST_EXACT = 2**53
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one rich style ("bold red"; empty: as it is). Brackets in it are brackets, not markup."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and whether it holds numbers (to the right) or prose (wraps on a terminal)."""

    heading: str
    number: bool = False
    prose: bool = False


def one_line(text: str) -> str:
    """The text without line breaks and without anything that would steer a terminal."""
    return _CONTROL.sub(" ", text).strip()


def print_line(*spans: Span) -> None:
    """Prints one line at once, so that a reader at the other end of a pipe sees it while it is new."""
    if _on_terminal():
        _console().print(_text(spans), soft_wrap=True)
    else:
        click.echo("".join(span.text for span in spans).rstrip())
    sys.stdout.flush()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[Span]]) -> None:
    """Prints the rows under their headings; an empty cell becomes "-", so that no column goes missing."""
    filled = [[cell if cell.text else Span(NOTHING, "dim") for cell in row] for row in rows]
    if _on_terminal():
        _print_rich_table(columns, filled)
        return
    texts = [[column.heading for column in columns], *([cell.text for cell in row] for row in filled)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = zip(columns, row, widths, strict=True)
        padded = (text.rjust(width) if column.number else text.ljust(width) for column, text, width in cells)
        click.echo(_GAP.join(padded).rstrip())


def print_fields(fields: Sequence[tuple[str, Span]]) -> None:
    """Prints "name  value" lines with the values aligned; fields without a value are left out."""
    shown = [(name, value) for name, value in fields if value.text]
    widest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print_line(Span(name.ljust(widest) + _GAP, "dim"), value)


def print_block(title: str, text: str) -> None:
    """Prints text of several lines under its title, indented; nothing at all if it is empty."""
    if not text:
        return
    print_line(Span(title, "dim"))
    for line in text.splitlines():
        print_line(Span(_GAP + _CONTROL.sub(" ", line.expandtabs(4))))


def print_text(text: str) -> None:
    """Prints the text as it is, ended by one line break."""
    click.echo(text, nl=not text.endswith("\n"))


def print_json(document: object) -> None:
    """Prints one JSON document, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(document: object) -> None:
    """Prints one JSON document on one line, at once."""
    click.echo(json.dumps(document, ensure_ascii=False))
    sys.stdout.flush()


def note(text: str) -> None:
    """Says something beside the result, on standard error, so that a pipe gets the result alone."""
    click.echo(text, err=True)


def note_more(more: bool) -> None:
    """Says that the list goes on, if it does."""
    if more:
        note("there are more: raise --limit, or 0 for all")


def as_json(message: Message) -> dict[str, Any]:
    """The message in proto JSON, every field under its name in the .proto; int64 as text, times in UTC."""
    document: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    whole: dict[str, Any] = _with_whole_numbers(document)
    return whole


def _with_whole_numbers(value: Any) -> Any:
    """The same with 2 in place of 2.0: a protobuf Value knows doubles only, and nobody wrote the point."""
    if isinstance(value, dict):
        return {key: _with_whole_numbers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_whole_numbers(member) for member in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT
    return int(value) if is_whole else value


def pretty_json(text: str) -> str:
    """The JSON text indented; as it is if it is no JSON."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def instant(moment: Timestamp) -> str:
    """Date and time: local to the second on a terminal, RFC 3339 in UTC in a pipe; empty if not set."""
    if not moment.seconds:
        return ""
    return f"{_local(moment):%Y-%m-%d %H:%M:%S}" if _on_terminal() else _rfc3339(moment)


def time_of_day(moment: Timestamp) -> str:
    """The time with milliseconds: local on a terminal, RFC 3339 in UTC in a pipe."""
    return f"{_local(moment):%H:%M:%S.%f}"[:-3] if _on_terminal() else _rfc3339(moment)


def length_of(duration: Duration) -> str:
    """The duration in words; empty for one of no length."""
    seconds = duration.ToTimedelta().total_seconds()
    return words_for(seconds) if seconds else ""


def words_for(seconds: float) -> str:
    """A length of time for people: "250 ms", "1.5 s", "2 min 5 s", "3 h 20 min", "4 d 2 h"."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g} s"
    whole = round(seconds)
    if whole < 3600:
        return _two_units(whole, "min", 60, "s", 1)
    if whole < 86400:
        return _two_units(whole, "h", 3600, "min", 60)
    return _two_units(whole, "d", 86400, "h", 3600)


def _two_units(seconds: int, unit: str, length: int, smaller_unit: str, smaller_length: int) -> str:
    rest = seconds % length // smaller_length
    return f"{seconds // length} {unit}" + (f" {rest} {smaller_unit}" if rest else "")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _local(moment: Timestamp) -> datetime:
    return moment.ToDatetime(tzinfo=UTC).astimezone()


def _rfc3339(moment: Timestamp) -> str:
    return moment.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@cache
def _console(width: int | None = None) -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, width=width)


def _text(spans: Sequence[Span]) -> "Text":
    from rich.text import Text

    return Text.assemble(*((span.text, span.style) for span in spans))


def _print_rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Span]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.number else "left",
            no_wrap=not column.prose,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(_text([cell]) for cell in row))
    # A narrower terminal breaks the lines: an id that is cut short is of no use.
    _console(max(_console().width, _least_width(columns, rows))).print(table)


def _least_width(columns: Sequence[Column], rows: Sequence[Sequence[Span]]) -> int:
    """How wide the table must be for every cell that is not prose to be whole."""
    from rich.cells import cell_len

    total = 0
    for place, column in enumerate(columns):
        widest = max(map(cell_len, (column.heading, *(row[place].text for row in rows))))
        total += (min(widest, _NARROWEST_PROSE) if column.prose else widest) + len(_GAP)
    return total
