"""One job per call over many connections, by a client in Go: Enqueue beside an empty method of a server like the broker's, turn by turn.

`of empty` is the share of the rate that gRPC alone reaches with the same request; what is missing to 1 is the broker's and the database's.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.report.medians import with_ratios
from bench.scenario import NO_GO, Stage
from bench.testbed import (
    Broker,
    Database,
    ProcessFailed,
    run_load,
    running_broker,
    running_process,
)
from bench.workload import Figure, Load, Site, Task

_CONNECTIONS = (16, 128)
_ONE, _TWO, _EMPTY = "reprise", "reprise --processes 2", "empty method"


def measure(stage: Stage) -> Iterator[Measurement]:
    """Calls per second of one broker process, of two, and of the empty method; nothing where there is no Go."""
    if (program := build_client(stage.tools)) is None:
        yield Row(Figure.ONE_BY_ONE, _ONE, note=NO_GO)
        return
    with stage.testbed() as site, ExitStack() as servers:
        database = Database(site.database_url, site.database_pid)
        empty = running_process(["-m", "bench.loads.empty_server"], stage.folder / "empty.log")
        sites = {_ONE: site, _EMPTY: _at(site, servers.enter_context(empty))}
        try:
            two = running_broker(database, stage.folder / "processes.log", "--processes", "2")
            sites[_TWO] = _at(site, servers.enter_context(two))
        except ProcessFailed as error:
            yield Row(Figure.ONE_BY_ONE, _TWO, note=f"not measured: {str(error).splitlines()[-1]}")
        for number in range(stage.rounds):
            for callers in _CONNECTIONS:
                rows = [_turn(one, subject, callers, number, program) for subject, one in sites.items()]
                yield from with_ratios(rows, "of_empty", (_EMPTY,))


def _at(site: Site, server: Broker) -> Site:
    return replace(site, address=server.address, broker_pid=server.pid)


def _turn(site: Site, subject: str, callers: int, number: int, program: Path) -> Row:
    task = Task(site, Load(0, 1, callers=callers), f"calls-{callers}-{number}", (), str(program))
    return replace(run_load("bench.loads.calls_load", task)[0], subject=subject)
