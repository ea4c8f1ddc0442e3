"""`python -m bench`: runs scenarios one after the other, prints their tables, and writes JSON and plots to bench/results/."""

import json
import shutil
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench.machine import describe
from bench.measurement import Measurement, Row, Series
from bench.report.medians import medians
from bench.report.plots import draw
from bench.report.table import show_facts, show_progress, show_rows
from bench.scenario import SCENARIOS, Scenario, Stage
from broker.embedded import Source

_RESULTS = Path(__file__).parent / "results"
_FULL_ROUNDS = 3
_FULL_MINUTES = 10
_WIDTH = 140  # of the tables where there is no terminal


@click.command()
@click.option("--full", is_flag=True, help="Every scenario, at length and with peers; else the short ones.")
@click.option("--only", multiple=True, type=click.Choice([scenario.name for scenario in SCENARIOS]),
    help="This scenario; may be given several times.")  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1), help="Rounds to take medians of.  [default: 1, or 3 with --full]"
)
@click.option(
    "--minutes",
    type=click.IntRange(1),
    help="How long the steady load lasts.  [default: 1, or 10 with --full]",
)
@click.option(
    "--postgres",
    type=click.Choice(list(Source)),
    default=Source.WHEEL,
    show_default=True,
    help="Whose PostgreSQL.",
)
@click.option("--profile", is_flag=True,
    help="Record where time goes too: the broker's by py-spy, the database's by pg_stat_statements. It lowers rates.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=_RESULTS, show_default=False,
    help="Where results go, and databases while they run.  [default: bench/results]")  # fmt: skip
def bench(
    full: bool,
    only: tuple[str, ...],
    rounds: int | None,
    minutes: int | None,
    postgres: Source,
    profile: bool,
    results: Path,
) -> None:
    """Measure throughput, latency and punctuality."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    folder = results / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    (results / "tools").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    facts = describe(postgres)
    show_facts(facts, console)
    failed = []
    for scenario in SCENARIOS:
        if scenario.name in only or (not only and (full or scenario.quick)):
            stage = Stage(
                folder / "testbed",
                results / "tools",
                postgres,
                rounds or (_FULL_ROUNDS if full else 1),
                full,
                minutes or (_FULL_MINUTES if full else 1),
                folder / f"{scenario.name}-profiles" if profile else None,
            )
            if not _run(scenario, stage, folder, facts, console):
                failed.append(scenario.name)
    console.print(f"written to {folder}", highlight=False, soft_wrap=True)
    if failed:
        raise click.ClickException(f"not measured to the end: {', '.join(failed)}")


def _run(scenario: Scenario, stage: Stage, folder: Path, facts: dict[str, str], console: Console) -> bool:
    """Shows and writes what one scenario measures; False when it broke off, which keeps no other from running."""
    console.rule(f"{scenario.name}: {scenario.shows}", align="left")
    stage.folder.mkdir()
    measured: list[Measurement] = []
    started = time.monotonic()
    whole = False
    try:
        for one in scenario.load().measure(stage):
            measured.append(one)
            show_progress(one, console)
        whole = True
    except Exception:
        console.print_exception(width=_WIDTH)
        shutil.copytree(
            stage.folder, folder / f"{scenario.name}-logs", ignore=shutil.ignore_patterns("data*")
        )
    rows = [one for one in measured if isinstance(one, Row)]
    series = [one for one in measured if isinstance(one, Series)]
    show_rows(medians(rows), console)
    document = {
        "scenario": scenario.name,
        "machine": facts,
        "seconds": round(time.monotonic() - started),
        "medians": [asdict(row) for row in medians(rows)],
        "rounds": [asdict(row) for row in rows],
        "series": [asdict(one) for one in series],
    }
    (folder / f"{scenario.name}.json").write_text(json.dumps(document, indent=1))
    draw(series, folder)
    shutil.rmtree(stage.folder)
    return whole


if __name__ == "__main__":
    bench()
