"""CPU seconds of the parts apart: all processes of PostgreSQL, the broker, the load process that asks, and the rest of the machine."""

import time
from dataclasses import dataclass
from typing import Self

import psutil

from bench.workload import Figure, Load, Route, Site, Throughput


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    database: float
    broker: float
    load: float
    machine: float


class Meter:
    """Measures a stretch of work from `start` to `stop`."""

    def __init__(self, site: Site) -> None:
        self._database = psutil.Process(site.database_pid)
        self._broker = psutil.Process(site.broker_pid)
        self._load = psutil.Process()
        self._started = self._read()

    @classmethod
    def start(cls, site: Site) -> Self:
        """A meter that runs from now on."""
        return cls(site)

    def stop(self, figure: Figure, route: Route, load: Load) -> Throughput:
        """What the jobs of `load` have cost since the start."""
        before, after = self._started, self._read()
        parts = {
            "database": after.database - before.database,
            "broker": after.broker - before.broker,
            "load": after.load - before.load,
        }
        parts["elsewhere"] = max(0.0, after.machine - before.machine - sum(parts.values()))
        return Throughput(figure, route, load.batch, load.jobs, after.at - before.at, parts)

    def _read(self) -> _Reading:
        return _Reading(
            time.perf_counter(),
            _of_family(self._database),
            _of(self._broker),
            _of(self._load),
            _of_machine(),
        )


def _of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _of_family(process: psutil.Process) -> float:
    """A process, its children that live, and those that have ended: the kernel adds up the latter in their parent."""
    own = process.cpu_times()
    total = float(own.user + own.system + own.children_user + own.children_system)
    for child in process.children(recursive=True):
        try:
            total += _of(child)
        except psutil.NoSuchProcess:
            continue
    return total


def _of_machine() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
