"""The arithmetic behind every figure that the bench prints, and that its scenarios can be found."""

import io
import json

import pytest
from rich.console import Console

from bench.measurement import Row, hear, tell
from bench.report.medians import medians, percentiles, with_ratios
from bench.report.table import show_rows, written
from bench.scenario import SCENARIOS, Scenario


def _round(subject: str, rate: float) -> Row:
    return Row("mixed", subject, "batches of 500", {"per_second": rate})


def test_rounds_of_one_measurement_become_their_median_value_by_value() -> None:
    rounds = [
        Row("mixed", "reprise", "", {"per_second": rate, "database_us": cost})
        for rate, cost in ((10.0, 5.0), (30.0, 1.0), (20.0, 9.0))
    ]

    assert medians(rounds) == [Row("mixed", "reprise", "", {"per_second": 20.0, "database_us": 5.0})]


def test_what_differs_in_figure_subject_or_setting_stays_apart_and_in_order() -> None:
    rows = [Row("b", "x"), Row("a", "x"), Row("a", "y"), Row("a", "x", "other"), Row("a", "x")]

    assert medians(rows) == rows[:4]


def test_a_note_survives_once() -> None:
    rows = [Row("a", "river", note="not measured: no go"), Row("a", "river", note="not measured: no go")]

    assert medians(rows) == [rows[0]]


def test_shares_are_of_the_better_yardstick() -> None:
    rows = [_round("reprise", 20.0), _round("raw", 25.0), _round("prototype", 40.0)]

    shares = [row.values["of_raw"] for row in with_ratios(rows, "of_raw", ("raw", "prototype"))]

    assert shares == [0.5, 0.625, 1.0]


def test_without_a_yardstick_there_is_no_share() -> None:
    rows = [_round("reprise", 20.0), Row("mixed", "raw", "batches of 10", {"per_second": 25.0})]

    assert "of_raw" not in with_ratios(rows, "of_raw", ("raw",))[0].values


def test_percentiles_lie_between_the_waits() -> None:
    assert percentiles([float(wait) for wait in range(101)]) == {
        "p50_ms": 50.0,
        "p99_ms": 99.0,
        "worst_ms": 100.0,
    }


def test_rows_travel_between_processes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_round("reprise", 20.0), Row("mixed", "river", note="not measured")]

    tell(rows)

    printed = capsys.readouterr().out
    assert json.loads(printed)
    assert hear(printed) == rows


def test_the_table_shows_every_value_and_every_note() -> None:
    output = io.StringIO()

    show_rows([_round("reprise", 12345.6), Row("mixed", "river", note="not measured")], Console(file=output))

    for part in ("mixed", "reprise", "batches of 500", "/s", "12,346", "river", "not measured"):
        assert part in output.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (-1234.4, "-1,234"), (99.96, "100.0"), (12.34, "12.3"), (0.456, "0.46")],
)
def test_figures_are_written_in_few_digits(value: float, text: str) -> None:
    assert written(value) == text


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.name))
def test_every_scenario_of_the_list_is_there(scenario: Scenario) -> None:
    assert callable(scenario.load().measure)
