"""Other queues on the same PostgreSQL with the same settings, turn by turn with Reprise.

Each works in a database of its own. They call PostgreSQL straight from one process that enqueues and works; Reprise is driven over gRPC.
`of reprise` is a peer's share of the rate of Reprise in the same round.
"""

from collections.abc import Iterator
from dataclasses import replace

import psycopg

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.peers.peer import PEERS, NotToBeHad, Peer, PeerTask, run
from bench.report.medians import with_ratios
from bench.scenario import NO_GO, Stage
from bench.testbed import ProcessFailed, run_load
from bench.workload import PRODUCERS, Figure, Load, Site, Task

_BATCH = 500
_JOBS = 40_000
_RETRY_JOBS = 20_000
_SINGLE_CALLS = 8_000
_WAITS = 300
_LATE_BATCH = 50
_SPREAD_SECONDS = 6.0


def measure(stage: Stage) -> Iterator[Measurement]:
    """Every figure of Reprise and of each peer that can be installed here."""
    commands: dict[str, list[str]] = {}
    for name, peer in PEERS.items():
        try:
            commands[name] = peer.install(stage.tools)
        except NotToBeHad as error:
            yield Row(Figure.MIXED, name, note=f"not measured: {error}")
    with stage.testbed() as site:
        bases = {name: _database(site, name) for name in commands}
        for number in range(stage.rounds):
            for figure in ("batches", "mixed", "one by one", "retry path", "start", "retry lateness"):
                rows = list(_of_reprise(stage, site, figure, number))
                for name, command in commands.items():
                    rows += _of_peer(PEERS[name], command, bases[name], figure)
                yield from with_ratios(rows, "of_reprise", ("reprise",))


def _of_reprise(stage: Stage, site: Site, figure: str, number: int) -> Iterator[Row]:
    """The same figure through gRPC."""
    queue = f"peers-{figure.replace(' ', '-')}-{number}"
    load = Load(_JOBS, _BATCH)
    program = str(build_client(stage.tools) or "")
    match figure:
        case "batches":
            figures = (Figure.ENQUEUE, Figure.BURN_DOWN)
            yield from run_load("bench.loads.batch_load", Task(site, load, queue, figures, program))
        case "mixed":
            yield from run_load("bench.loads.batch_load", Task(site, load, queue, (Figure.MIXED,), program))
        case "retry path" | "one by one" if not program:
            yield Row(
                Figure.RETRY_PATH if figure == "retry path" else Figure.ONE_BY_ONE, "reprise", note=NO_GO
            )
        case "retry path":
            retrying = Task(site, replace(load, jobs=_RETRY_JOBS), queue, (Figure.RETRY_PATH,), program)
            yield from run_load("bench.loads.retry_load", retrying)
        case "one by one":
            yield from run_load("bench.loads.calls_load", Task(site, Load(0, 1), queue, (), program))
        case "start":
            module = "bench.loads.calls_load" if program else "bench.loads.waits_load"
            task = Task(site, Load(_WAITS), queue, (Figure.ENQUEUE_TO_START,), program)
            yield from run_load(module, task)
        case _:
            task = Task(site, Load(_WAITS), queue, (Figure.RETRY_LATENESS,), program)
            yield from run_load("bench.loads.waits_load", task)


def _of_peer(peer: Peer, command: list[str], site: Site, figure: str) -> list[Row]:
    """The same figure by the peer's program; a row that says so when it fails, which keeps nothing else from being measured."""
    jobs = {"retry path": _RETRY_JOBS, "one by one": _SINGLE_CALLS}.get(figure, _JOBS)
    batch = _BATCH
    if figure in ("start", "retry lateness"):
        jobs, batch = _WAITS, _LATE_BATCH
    else:
        jobs = max(1, int(jobs * peer.share_of_jobs) // (batch * PRODUCERS)) * batch * PRODUCERS
    payload = Load(1).input_json()
    try:
        return list(
            run(peer, command, site, PeerTask(figure, jobs, batch, payload, spread_seconds=_SPREAD_SECONDS))
        )
    except ProcessFailed as error:
        return [Row(figure, peer.name, note=f"not measured: {str(error).splitlines()[-1]}")]


def _database(site: Site, peer: str) -> Site:
    """A database of the peer's own in the same server."""
    name = peer.lower().replace("-", "_")
    with psycopg.connect(site.database_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return replace(site, database_url=site.database_url.replace("/reprise?", f"/{name}?"), broker_pid=0)
