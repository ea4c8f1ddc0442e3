"""Turns the figures of all rounds into one document and one table: medians, and ratios of what was measured side by side."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.workload import PRODUCERS, STREAMS, Figure, Load, Measured, Route, Throughput, Waits

_TITLES = {
    Figure.ENQUEUE: "enqueue, jobs/s",
    Figure.BURN_DOWN: "burn-down, jobs/s",
    Figure.MIXED: "mixed, lifecycles/s",
    Figure.ENQUEUE_TO_LEASE: "enqueue to lease",
    Figure.RETRY_LATENESS: "retry due to lease",
}

# CPU microseconds of one job, by part.
_CPU_HEADINGS = ("database\nus", "broker\nus", "load\nus", "raw data-\nbase us", "raw load\nus")
_EXPLANATION = (
    "gRPC: from clients through the broker. raw: the broker's own statements without gRPC, in one process. ratio: median of the pairs. "
    "us: CPU time of one job, by part; raw load is the driver's and the harness's."
)

Document = dict[str, Any]


def summarize(facts: dict[str, str], load: Load, rounds: int, measured: Sequence[Measured]) -> Document:
    """What is written as JSON: the circumstances, the medians that the table shows, and every round."""
    throughputs = [one for one in measured if isinstance(one, Throughput)]
    kinds = dict.fromkeys((one.figure, one.batch) for one in throughputs)
    return {
        "machine": facts,
        "load": {
            "streams": STREAMS,
            "credits_of_a_stream": "2 batches",
            "producers": PRODUCERS,
            "payload_bytes": load.payload_bytes,
            "events_of_a_job": 3,
            "rounds": rounds,
        },
        "throughput": [_throughput(figure, batch, throughputs) for figure, batch in kinds],
        "waits": [_waits(one) for one in measured if isinstance(one, Waits)],
        "rounds": [_round(one) for one in throughputs],
    }


def show(document: Document, console: Console) -> None:
    """Prints the document for people."""
    for part in ("machine", "load"):
        console.print(", ".join(f"{name} {value}" for name, value in document[part].items()), highlight=False)
    console.print(_throughput_table(document["throughput"]))
    console.print(_waits_table(document["waits"]))
    console.print(_EXPLANATION, highlight=False)


def _throughput(figure: Figure, batch: int, measured: Sequence[Throughput]) -> Document:
    by_route = {
        route: [one for one in measured if (one.figure, one.batch, one.route) == (figure, batch, route)]
        for route in Route
    }
    pairs = zip(by_route[Route.GRPC], by_route[Route.RAW], strict=True)
    return {
        "figure": figure,
        "batch": batch,
        "jobs": by_route[Route.GRPC][0].jobs,
        "grpc_per_second": round(median(one.per_second for one in by_route[Route.GRPC])),
        "raw_per_second": round(median(one.per_second for one in by_route[Route.RAW])),
        "ratio": round(median(grpc.per_second / raw.per_second for grpc, raw in pairs), 3),
        "grpc_cpu_microseconds": _cpu(by_route[Route.GRPC], "database", "broker", "load"),
        "raw_cpu_microseconds": _cpu(by_route[Route.RAW], "database", "load"),
    }


def _cpu(measured: Sequence[Throughput], *parts: str) -> dict[str, float]:
    return {part: round(median(one.cpu_microseconds(part) for one in measured), 1) for part in parts}


def _waits(one: Waits) -> Document:
    percentiles = quantiles(one.milliseconds, n=100, method="inclusive")
    return {
        "figure": one.figure,
        "route": one.route,
        "count": len(one.milliseconds),
        "p50_milliseconds": round(percentiles[49], 2),
        "p99_milliseconds": round(percentiles[98], 2),
        "worst_milliseconds": round(max(one.milliseconds), 2),
    }


def _round(one: Throughput) -> Document:
    return {
        "figure": one.figure,
        "batch": one.batch,
        "route": one.route,
        "per_second": round(one.per_second),
        "cpu_microseconds": {part: round(one.cpu_microseconds(part), 1) for part in one.cpu_seconds},
        "cores_busy_elsewhere": round(one.cpu_seconds["elsewhere"] / one.seconds, 2),
    }


def _throughput_table(rows: Sequence[Document]) -> Table:
    table = Table(title="Throughput (medians)", title_justify="left")
    table.add_column("")
    for name in ("batch", "gRPC", "raw", "ratio", *_CPU_HEADINGS):
        table.add_column(name, justify="right")
    for row in rows:
        grpc, raw = row["grpc_cpu_microseconds"], row["raw_cpu_microseconds"]
        table.add_row(
            _TITLES[row["figure"]],
            str(row["batch"]),
            f"{row['grpc_per_second']:,}",
            f"{row['raw_per_second']:,}",
            f"{row['ratio']:.2f}",
            *(f"{value:.1f}" for value in (grpc["database"], grpc["broker"], grpc["load"])),
            *(f"{value:.1f}" for value in (raw["database"], raw["load"])),
        )
    return table


def _waits_table(rows: Sequence[Document]) -> Table:
    table = Table(title="Single jobs at rest (milliseconds)", title_justify="left")
    table.add_column("")
    table.add_column("route")
    for name in ("count", "p50", "p99", "worst"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            _TITLES[row["figure"]],
            row["route"],
            str(row["count"]),
            *(f"{row[f'{name}_milliseconds']:.2f}" for name in ("p50", "p99", "worst")),
        )
    return table
