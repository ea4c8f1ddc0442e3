"""CPU time of the parts apart: all processes of PostgreSQL, of the broker, of the load, and the rest of the machine."""

import os
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
        self._database = site.database_pid
        self._broker = site.broker_pid
        self._load = load_pid or os.getpid()
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
        at = time.perf_counter()
        families = _Families()
        return Reading(
            at,
            families.spent_by(self._database),
            families.spent_by(self._broker) if self._broker else 0.0,
            families.spent_by(self._load),
            _of_machine(),
        )


class _Families:
    """All processes of this moment, with their parents."""

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._children: dict[int, list[int]] = {}
        for pid in psutil.pids():
            try:
                # Made anew: a kept one is taken for another process once the machine's clock was set.
                process = psutil.Process(pid)
                with process.oneshot():
                    times, parent = process.cpu_times(), process.ppid()
            except psutil.NoSuchProcess:
                continue
            # Of children that have ended: the kernel adds them up in their parent.
            ended = times.children_user + times.children_system
            self._spent[process.pid] = float(times.user + times.system + ended)
            self._children.setdefault(parent, []).append(process.pid)

    def spent_by(self, pid: int) -> float:
        """CPU seconds of a process and of all that descend from it.

        PostgreSQL's checkpointer, writers and autovacuum workers are its children, like its sessions.
        """
        return self._spent.get(pid, 0.0) + sum(self.spent_by(child) for child in self._children.get(pid, ()))


def _of_machine() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
