"""What a scenario is, what it gives, and which there are.

A scenario is a module with `def measure(stage: Stage) -> Iterator[Measurement]` and a line in SCENARIOS. It starts the processes that it
needs (`stage.testbed()` gives a database and a broker), drives them from processes of their own, and yields what it measured as it goes: a
row as often as there are rounds, of which the report takes the medians. Turn by turn what is compared: first one, then the other, in
every round.
"""

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from bench.measurement import Measurement
from bench.testbed import testbed
from bench.workload import Site
from broker.embedded import Source

# The note of a row that only the client in Go could give.
NO_GO = "not measured: no Go to build the client with"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario runs: an empty folder of its own on a real disk, the PostgreSQL to take, and how often to measure."""

    folder: Path
    tools: Path  # kept between runs: programs that are built or installed for the bench
    postgres: Source
    rounds: int
    full: bool  # False: the short form, which must take no more than a minute or two
    minutes: int  # of a load that goes on and on
    profiles: Path | None = None  # the folder for profiles of its loads; none are made without it

    def testbed(self, *broker_options: str) -> AbstractContextManager[Site]:
        """An empty database and a broker on it, with these options of `reprise broker`, while the block runs."""
        return testbed(self.folder, (self.postgres,), *broker_options, profiles=self.profiles)


class ScenarioModule(Protocol):
    """What the module of a scenario has."""

    def measure(self, stage: Stage) -> Iterator[Measurement]:
        """Yields what is measured, as it is measured."""
        ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """A line of the list: its name for `--only`, what it shows, and whether it belongs to the short run too."""

    name: str
    shows: str
    quick: bool = False

    def load(self) -> ScenarioModule:
        """The module of that name."""
        return cast("ScenarioModule", importlib.import_module(f"bench.scenarios.{self.name}"))


SCENARIOS = (
    Scenario("throughput", "batches: enqueue, burn-down and mixed lifecycles, against raw SQL", quick=True),
    Scenario(
        "rest", "single jobs on a broker at rest: enqueue to start, and how late due jobs start", quick=True
    ),
    Scenario("calls", "one job per call over 16 and 128 connections, beside an empty method"),
    Scenario("retries", "the retry path: jobs that fail twice, decided by an expression"),
    Scenario("scale", "the same on a database of 12 million jobs and on an empty one, and every read there"),
    Scenario("snapshot", "mixed lifecycles while a session holds an old snapshot for five minutes"),
    Scenario("steady", "waits, dead rows and disk while 2 000 jobs come every second"),
    Scenario("partitions", "single jobs while partitions are made and dropped"),
    Scenario(
        "streams", "a thousand lease streams, few or all of them busy, and a small one beside a big one"
    ),
    Scenario("queues", "jobs in ten thousand queues, leased by streams that share them"),
    Scenario("worker", "the Python worker: no-op handlers of one process, and python steps"),
    Scenario("idle", "the CPU of broker and database while workers wait and nothing happens"),
    Scenario(
        "cores", "mixed lifecycles by one and two broker processes, and by one that has a core to itself"
    ),
    Scenario("startup", "how soon the command answers: its help, and everything on one machine"),
    Scenario("peers", "other queues on the same PostgreSQL, turn by turn with Reprise"),
)
