"""What a load process is told, and what it says afterwards. Both travel as JSON between processes."""

import json
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum

KIND = "noop"
RESULT = '{"ok":true}'
MAX_ATTEMPTS = 3
PRODUCERS = 2
STREAMS = 2


class Figure(StrEnum):
    """What is measured."""

    ENQUEUE = "enqueue"
    BURN_DOWN = "burn_down"
    MIXED = "mixed"
    ENQUEUE_TO_LEASE = "enqueue_to_lease"
    RETRY_LATENESS = "retry_lateness"


class Route(StrEnum):
    """How jobs travel: through the broker, or by its statements alone."""

    GRPC = "grpc"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the measured processes are."""

    address: str
    database_url: str
    database_pid: int
    broker_pid: int


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what. Producers and streams share the jobs, so `jobs` is a multiple of `batch` times PRODUCERS."""

    jobs: int
    batch: int = 500
    payload_bytes: int = 200

    @property
    def credits(self) -> int:
        """Credits of each lease stream: one batch on its way and one being worked on."""
        return 2 * self.batch

    @property
    def input_json(self) -> str:
        """A JSON object of exactly `payload_bytes`."""
        empty = '{"payload":""}'
        return f"{empty[:-2]}{'x' * (self.payload_bytes - len(empty))}{empty[-2:]}"


@dataclass(frozen=True, slots=True)
class Throughput:
    """So many jobs, in batches of `batch`, took so long.

    `cpu_seconds` by part: database, broker, load; elsewhere is everything else on the machine.
    """

    figure: Figure
    route: Route
    batch: int
    jobs: int
    seconds: float
    cpu_seconds: dict[str, float]

    @property
    def per_second(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds

    def cpu_microseconds(self, part: str) -> float:
        """CPU time of one part for one job."""
        return self.cpu_seconds[part] / self.jobs * 1e6


@dataclass(frozen=True, slots=True)
class Waits:
    """How long each of many single jobs took, in milliseconds."""

    figure: Figure
    route: Route
    milliseconds: list[float]


Measured = Throughput | Waits


@dataclass(frozen=True, slots=True)
class Task:
    """One call of a load process: its site, its load, its queue, and which figures to take."""

    site: Site
    load: Load
    queue: str
    figures: tuple[Figure, ...]

    def to_json(self) -> str:
        """For the command line of a load process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> "Task":
        """What this process was told to do."""
        told = json.loads(sys.argv[1])
        return cls(
            Site(**told["site"]),
            Load(**told["load"]),
            told["queue"],
            tuple(Figure(name) for name in told["figures"]),
        )


def tell(measured: list[Measured]) -> None:
    """Prints what was measured, for the process that started this one."""
    print(json.dumps([asdict(one) for one in measured]))


def hear(output: str) -> list[Measured]:
    """What a load process has told."""
    heard: list[Measured] = []
    for one in json.loads(output):
        figure, route = Figure(one.pop("figure")), Route(one.pop("route"))
        heard.append(
            Waits(figure, route, **one) if "milliseconds" in one else Throughput(figure, route, **one)
        )
    return heard
