"""CPU time of the parts apart: all processes of PostgreSQL, of the broker, of the load, and the rest of the machine."""

import time
from dataclasses import dataclass

import psutil

from bench.workload import Site


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds used so far, at an instant of the monotonic clock."""

    at: float
    database: float
    broker: float
    load: float
    machine: float


class Meter:
    """Measures stretches of work, each from `start` to `stop`.

    The load is the process `load_pid` and its children, by default those of this process. Without a broker (pid 0) its part is none.
    """

    def __init__(self, site: Site, load_pid: int | None = None) -> None:
        self._database = psutil.Process(site.database_pid)
        self._broker = psutil.Process(site.broker_pid) if site.broker_pid else None
        self._load = psutil.Process(load_pid)
        self.start()

    def start(self) -> None:
        """Counts from now on."""
        self._started = self.read()

    def stop(self, jobs: int) -> dict[str, float]:
        """Jobs per second since the start, microseconds of CPU time for each by part, and cores that the rest of the machine kept busy."""
        before, after = self._started, self.read()
        seconds = after.at - before.at
        spent = {
            "database": after.database - before.database,
            "broker": after.broker - before.broker,
            "load": after.load - before.load,
        }
        elsewhere = max(0.0, after.machine - before.machine - sum(spent.values()))
        return {
            "per_second": jobs / seconds,
            **{
                f"{part}_us": cpu / jobs * 1e6
                for part, cpu in spent.items()
                if part != "broker" or self._broker
            },
            "elsewhere_cores": elsewhere / seconds,
        }

    def read(self) -> Reading:
        """What all parts have used up to now."""
        return Reading(
            time.perf_counter(),
            _of_family(self._database),
            _of_family(self._broker) if self._broker else 0.0,
            _of_family(self._load),
            _of_machine(),
        )


def _of_family(process: psutil.Process) -> float:
    """A process, its descendants that live, and its children that have ended: the kernel adds up the latter in their parent.

    PostgreSQL's checkpointer, writers and autovacuum workers are such descendants, like its sessions.
    """
    own = process.cpu_times()
    total = float(own.user + own.system + own.children_user + own.children_system)
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += float(times.user + times.system + times.children_user + times.children_system)
    return total


def _of_machine() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
