"""What is measured: rows of a table, and curves over time. Both travel as JSON between processes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: what was measured of whom under which setting, values by name with the unit in the name.

    Rows of the same figure, subject and setting are rounds of one measurement. A row without values says why in its note.
    """

    figure: str  # "mixed lifecycles"
    subject: str  # "reprise", "raw", a peer
    setting: str = ""  # "batches of 500"
    values: Mapping[str, float] = field(
        default_factory=dict
    )  # {"per_second": …, "p99_ms": …, "database_us": …}
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve of a plot over time: points of (seconds since the start, value)."""

    figure: str  # the plot that it belongs to
    subject: str
    unit: str
    points: Sequence[tuple[float, float]]


Measurement = Row | Series


def tell(rows: Sequence[Row]) -> None:
    """Prints rows, for the process that started this one."""
    print(json.dumps([asdict(row) for row in rows]))


def hear(output: str) -> list[Row]:
    """The rows that a process has told."""
    return [Row(**one) for one in json.loads(output)]
