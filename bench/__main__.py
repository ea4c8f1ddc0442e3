"""`python -m bench`: one run, by default of some two minutes, that prints all figures and writes them to bench/results/."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from bench.machine import describe
from bench.report import show, summarize
from bench.testbed import ProcessFailed, run_load, testbed
from bench.workload import PRODUCERS, Figure, Load, Measured, Route, Site, Task
from broker.embedded import PostgresFailed, Source

_RESULTS = Path(__file__).parent / "results"
_MODULES = {Route.GRPC: "bench.grpc_load", Route.RAW: "bench.raw_load"}
_WARM_UP_JOBS = 10_000
_SINGLE_JOBS = 300
_RETRIES = 300
_WIDTH = 120  # of the table where there is no terminal


@click.command()
@click.option("--jobs", default=60_000, show_default=True, help="Jobs of one round.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1, 500), default=(500, 100), show_default=True,
    help="Jobs of one call; may be given several times. Burn-down is taken with the first one.")  # fmt: skip
@click.option("--rounds", default=3, show_default=True, help="gRPC and raw, one after the other, so often.")
@click.option(
    "--postgres",
    type=click.Choice(list(Source)),
    default=Source.WHEEL,
    show_default=True,
    help="Whose PostgreSQL.",
)
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=_RESULTS, show_default=False,
    help="Where the JSON goes, and the database while it runs.  [default: bench/results]")  # fmt: skip
def bench(jobs: int, batches: tuple[int, ...], rounds: int, postgres: Source, results: Path) -> None:
    """Measure enqueue, burn-down, mixed lifecycles and latency, through gRPC and raw."""
    folder = results / "testbed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    loads = [Load(_whole(jobs, batch), batch) for batch in batches]
    try:
        with testbed(folder, (postgres,)) as site:
            facts = describe(site.database_url)
            measured = _run(site, loads, rounds, console)
    except (PostgresFailed, ProcessFailed) as error:
        raise click.ClickException(f"{error}\nLogs are in {folder}") from error
    document = summarize(facts, loads[0], rounds, measured)
    file = results / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    file.write_text(json.dumps(document, indent=2))
    show(document, console)
    console.print(f"written to {file}", highlight=False, soft_wrap=True)
    shutil.rmtree(folder)


def _whole(jobs: int, batch: int) -> int:
    """As many jobs as the producers can enqueue in whole batches."""
    of_all_producers = batch * PRODUCERS
    return max(1, jobs // of_all_producers) * of_all_producers


def _run(site: Site, loads: list[Load], rounds: int, console: Console) -> list[Measured]:
    """gRPC and raw turn by turn, on one database that grows; first a round that does not count."""
    burn, at_rest = (Figure.ENQUEUE, Figure.BURN_DOWN), (Figure.ENQUEUE_TO_LEASE,)
    _both(site, replace(loads[0], jobs=_whole(_WARM_UP_JOBS, loads[0].batch)), (Figure.MIXED,), "warm-up")
    measured: list[Measured] = []
    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}", highlight=False)
        measured += _both(site, loads[0], burn, f"burn-{number}")
        for load in loads:
            measured += _both(site, load, (Figure.MIXED,), f"mixed-{load.batch}-{number}")
    console.print("single jobs, at rest", highlight=False)
    single = replace(loads[0], jobs=_SINGLE_JOBS)
    measured += run_load("bench.at_rest", Task(site, single, "rest", at_rest))
    measured += run_load("bench.raw_load", Task(site, single, "rest-raw", at_rest))
    retries = replace(loads[0], jobs=_RETRIES)
    measured += run_load("bench.at_rest", Task(site, retries, "rest", (Figure.RETRY_LATENESS,)))
    return measured


def _both(site: Site, load: Load, figures: tuple[Figure, ...], queue: str) -> list[Measured]:
    """Each route has a queue of its own: nothing of one is left for the other."""
    measured: list[Measured] = []
    for route, module in _MODULES.items():
        measured += run_load(module, Task(site, load, f"{queue}-{route}", figures))
    return measured


if __name__ == "__main__":
    bench()
