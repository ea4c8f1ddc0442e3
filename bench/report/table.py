"""Rows as tables for people: one table for each figure, one line for each subject and setting."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.measurement import Measurement, Row


def show_facts(facts: Mapping[str, str], console: Console) -> None:
    """Prints what the figures depend on."""
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False)


def show_progress(one: Measurement, console: Console) -> None:
    """Prints one line about what has just been measured."""
    if isinstance(one, Row):
        values = "  ".join(f"{_heading(name)} {written(value)}" for name, value in one.values.items())
        line = f"{one.figure} | {one.subject} {one.setting} | {values}{one.note}"
        console.print(line, highlight=False, soft_wrap=True, style="dim")


def show_rows(rows: Sequence[Row], console: Console) -> None:
    """Prints rows that hold medians already."""
    for figure in dict.fromkeys(row.figure for row in rows):
        console.print(_table(figure, [row for row in rows if row.figure == figure]))


def _table(figure: str, rows: Sequence[Row]) -> Table:
    table = Table(title=figure, title_justify="left")
    names = dict.fromkeys(name for row in rows for name in row.values)
    with_setting = any(row.setting for row in rows)
    table.add_column("")
    if with_setting:
        table.add_column("")
    for name in names:
        table.add_column(_heading(name), justify="right")
    if any(row.note for row in rows):
        table.add_column("")
    for row in rows:
        cells = [written(row.values[name]) if name in row.values else "" for name in names]
        table.add_row(row.subject, *([row.setting] if with_setting else []), *cells, row.note)
    return table


def _heading(name: str) -> str:
    return name.replace("per_second", "/s").replace("_", " ")


def written(value: float) -> str:
    """A figure in about three digits, thousands apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
