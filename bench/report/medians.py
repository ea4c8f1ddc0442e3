"""Pure arithmetic on measurements: medians over rounds, percentiles of waits, ratios of what was measured side by side."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles

from bench.measurement import Row


def medians(rows: Iterable[Row]) -> list[Row]:
    """One row for each figure, subject and setting, in the order of their first appearance: value by value the median of its rounds."""
    rounds: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        rounds.setdefault((row.figure, row.subject, row.setting), []).append(row)
    return [
        Row(figure, subject, setting, _medians_of([row.values for row in same]), _note_of(same))
        for (figure, subject, setting), same in rounds.items()
    ]


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """The values of a row about waits. Needs at least two of them."""
    hundredths = quantiles(milliseconds, n=100, method="inclusive")
    return {"p50_ms": hundredths[49], "p99_ms": hundredths[98], "worst_ms": max(milliseconds)}


def with_ratios(
    rows: Sequence[Row], name: str, yardsticks: Sequence[str], value: str = "per_second"
) -> list[Row]:
    """The rows of one round, each with its value as a share of the best yardstick's of its figure and setting, under `name`.

    Rows for which no yardstick was measured stay as they are.
    """
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.subject in yardsticks and value in row.values:
            key = (row.figure, row.setting)
            best[key] = max(best.get(key, 0.0), row.values[value])
    return [_with_ratio(row, name, best.get((row.figure, row.setting)), value) for row in rows]


def _with_ratio(row: Row, name: str, yardstick: float | None, value: str) -> Row:
    if yardstick is None or value not in row.values:
        return row
    values = {**row.values, name: row.values[value] / yardstick}
    return Row(row.figure, row.subject, row.setting, values, row.note)


def _medians_of(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in rounds for name in values)
    return {name: median(values[name] for values in rounds if name in values) for name in names}


def _note_of(rounds: Sequence[Row]) -> str:
    return "; ".join(dict.fromkeys(row.note for row in rounds if row.note))
