"""Where the next limit lies: mixed lifecycles by one and by two broker processes, and by one that has a core to itself.

Alone on its core a broker process shows what one can do at most, and how much of the other core database and load take meanwhile. The
network is the loopback of gRPC; the database is reached by a Unix socket.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import psutil

from bench.go_client import build_client
from bench.measurement import Measurement, Row
from bench.scenario import NO_GO, Stage
from bench.testbed import run_load
from bench.workload import Figure, Load, Site, Task

_LOAD = Load(100_000)
_WARM_UP = Load(20_000)
_PINNED = "one process on its own core"
_SETTINGS = {"one process": 1, "two processes": 2, _PINNED: 1}


def measure(stage: Stage) -> Iterator[Measurement]:
    """Lifecycles per second, CPU time and bytes over the network of each, turn by turn."""
    if (client := build_client(stage.tools)) is None:
        yield Row(Figure.MIXED, "reprise", note=NO_GO)
        return
    for _ in range(stage.rounds):
        for setting, processes in _SETTINGS.items():
            (folder := stage.folder / setting.replace(" ", "-")).mkdir()
            with replace(stage, folder=folder).testbed("--processes", str(processes)) as site:
                run_load("bench.loads.batch_load", _task(site, _WARM_UP, str(client)))
                with _pinned(site) if setting == _PINNED else nullcontext():
                    sent = _bytes_sent()
                    (row,) = run_load("bench.loads.batch_load", _task(site, _LOAD, str(client)))
                    sent = _bytes_sent() - sent
            shutil.rmtree(folder)
            yield replace(row, setting=setting, values={**row.values, "network_bytes": sent / _LOAD.jobs})


def _task(site: Site, load: Load, program: str) -> Task:
    return Task(site, load, f"cores-{load.jobs}", (Figure.MIXED,), program)


@contextmanager
def _pinned(site: Site) -> Iterator[None]:
    """The broker on the last core, database and load on all others, while the block runs."""
    *others, last = sorted(os.sched_getaffinity(0))
    database = psutil.Process(site.database_pid)
    for process in (database, *database.children(recursive=True)):
        process.cpu_affinity(others)
    broker = psutil.Process(site.broker_pid)
    for process in (broker, *broker.children(recursive=True)):
        _pin_threads(process.pid, [last])
    os.sched_setaffinity(0, others)  # of the load, which is started from here
    try:
        yield
    finally:
        os.sched_setaffinity(0, [*others, last])


def _pin_threads(pid: int, cores: list[int]) -> None:
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, cores)


def _bytes_sent() -> int:
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)
