"""What a load process is told: where the measured processes are, how much of what, and which figures to take."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

KIND = "noop"
MAX_ATTEMPTS = 3
PRODUCERS = 2
STREAMS = 2


def result_json(number: int) -> str:
    """What a job results in: another one for each, so that nothing is gained by what is the same."""
    return f'{{"job":{number}}}'


class Figure(StrEnum):
    """What a load process can measure."""

    ENQUEUE = "enqueue"
    BURN_DOWN = "burn-down"
    MIXED = "mixed lifecycles"
    ENQUEUE_TO_START = "enqueue to start, at rest"
    RETRY_LATENESS = "retry lateness, at rest"
    RETRY_LATENESS_BUSY = "retry lateness, 1000 due per second"
    SCHEDULED_LATENESS = "lateness of scheduled jobs, at rest"
    SCHEDULED_LATENESS_BUSY = "lateness of scheduled jobs, 1000 due per second"
    RETRY_PATH = "retry path"
    RETRY_PATH_ALIKE = "retry path, all failures alike"
    ONE_BY_ONE = "enqueue, one job per call"
    STEADY = "2000 jobs per second"
    SMALL_BESIDE_BIG = "a stream with 10 credits beside one with 10 000"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the measured processes are."""

    address: str
    database_url: str
    database_pid: int
    broker_pid: int
    lease_address: str = ""  # of a second broker, where jobs are leased that are enqueued at the first
    profiles: str = ""  # the folder for profiles of what is measured; none are made where it is empty


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what. Producers and streams share the jobs, so `jobs` is a multiple of `batch` times PRODUCERS."""

    jobs: int
    batch: int = 500
    payload_bytes: int = 200
    callers: int = 16  # of one job per call

    @property
    def credits(self) -> int:
        """Credits of each lease stream: one batch on its way and one being worked on."""
        return 2 * self.batch

    def input_json(self, number: int = 0) -> str:
        """A JSON object of exactly `payload_bytes` (30 or more), another one for each `number` below a billion."""
        empty = '{"payload":""}'
        payload = f"{number:09}".rjust(self.payload_bytes - len(empty), "x")
        return f"{empty[:-2]}{payload}{empty[-2:]}"

    @property
    def setting(self) -> str:
        """For the rows that it gives."""
        return f"batches of {self.batch}"


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who takes the jobs, and from how many queues."""

    busy: int  # streams that complete what they get
    credits: int  # of each of them
    taken: int = (
        0  # streams beside them at the same queue, without credits: workers whose slots are all taken
    )
    idle: int = 0  # streams with credits for queues that are empty
    queues: int = 1  # that get jobs, one after the other
    queues_of_stream: int = 1  # together they cover all of them, and overlap

    def queue_names(self, queue: str) -> list[str]:
        """The queues that get jobs."""
        return [queue] if self.queues == 1 else [f"{queue}-{number}" for number in range(self.queues)]

    def queues_of(self, number: int, names: Sequence[str]) -> list[str]:
        """Those of the busy stream of this number, in its order."""
        first = number * len(names) // self.busy
        return [names[(first + place) % len(names)] for place in range(self.queues_of_stream)]


@dataclass(frozen=True, slots=True)
class Task:
    """One call of a load process: its site, its load, its queue, and which figures to take."""

    site: Site
    load: Load
    queue: str
    figures: tuple[Figure, ...]
    program: str = ""  # a client that is not Python's, and was built for this
    crowd: Crowd | None = None  # of a load that many streams share

    def to_json(self) -> str:
        """For the command line of a load process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_command_line(cls) -> Self:
        """What this process was told to do."""
        told = json.loads(sys.argv[1])
        return cls(
            Site(**told["site"]),
            Load(**told["load"]),
            told["queue"],
            tuple(Figure(name) for name in told["figures"]),
            told["program"],
            Crowd(**told["crowd"]) if told["crowd"] else None,
        )
