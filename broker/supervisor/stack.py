"""The three parts together: started downhill (database, broker, worker), stopped uphill, restarted when one falls over."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.embedded import PostgresFailed, PostgresServer, find_binaries
from broker.embedded.hold import hold
from broker.supervisor.child import Child, ChildSpec

# A restarted part that falls over again at once must not fill the log.
_RESTART_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 0.2
# How long attempts that run may go on after a stop was asked for.
DRAIN_SECONDS = 5


class LogsInUse(Exception):
    """Another process writes to the folder of the logs, where nobody could tell the lines of two apart."""


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What to run and where.

    `data` holds the database, `logs` the parts' logs; both are made if missing. `listen` is HOST:PORT, port 0 takes a free one.
    `database_url` names a server to use instead of one of our own.
    """

    data: Path
    logs: Path
    listen: str = "127.0.0.1:50051"
    database_url: str | None = None


class Stack:
    """PostgreSQL, a broker and a worker that end with this process. A context manager; enter it in the main thread.

    `address` and `database_url` say where the broker and the database are, once it is entered. Entering raises LogsInUse,
    ChildFailed, PostgresFailed or BinariesNotFound; then nothing is left running.
    """

    def __init__(self, config: StackConfig) -> None:
        self._config = config
        self._cleanup = ExitStack()
        self._server: PostgresServer | None = None
        self._children: dict[str, Child] = {}
        self.address = config.listen
        self.database_url = config.database_url or ""

    @property
    def log_files(self) -> tuple[Path, ...]:
        """Where the parts log: broker and worker, then the database if it is ours."""
        names = ("broker", "worker") if self._config.database_url else ("broker", "worker", "postgres")
        return tuple(self._log(name) for name in names)

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._hold_logs(cleanup)
            if not self._config.database_url:
                self._start_database(cleanup)
            cleanup.callback(self._stop_children)
            self.address = self._start(self._broker_spec()).split()[0]
            self._start(self._worker_spec())
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def keep_running(self, tell: Callable[[str], None]) -> None:
        """Never returns by itself: starts a broker or worker anew when it ends, and tells so. Raises PostgresFailed if the
        database ends.
        """
        while True:
            time.sleep(_LOOK_SECONDS)
            code = self._server.wait(0) if self._server else None
            if code is not None:
                raise PostgresFailed(f"PostgreSQL ended with code {code}, see {self._log('postgres')}")
            for child in list(self._children.values()):
                if child.exit_code is not None:
                    tell(f"the {child.spec.name} ended with code {child.exit_code}, starting it again")
                    time.sleep(_RESTART_PAUSE_SECONDS)
                    self._restart(child.spec.name)

    def _hold_logs(self, cleanup: ExitStack) -> None:
        self._config.logs.mkdir(parents=True, exist_ok=True)
        held = hold(self._config.logs / ".lock")
        if held is None:
            raise LogsInUse(f"another process writes its logs to {self._config.logs}")
        cleanup.enter_context(held)

    def _start_database(self, cleanup: ExitStack) -> None:
        data = self._config.data / "postgres"
        self._server = cleanup.enter_context(PostgresServer(data, find_binaries(), log=self._log("postgres")))
        self.database_url = self._server.database_url()

    def _start(self, spec: ChildSpec) -> str:
        self._children[spec.name] = Child(spec)
        return self._children[spec.name].wait_until_ready()

    def _restart(self, name: str) -> None:
        """With the address that the first broker got, which port 0 would not give again."""
        self._children[name] = Child(self._broker_spec() if name == "broker" else self._worker_spec())

    def _stop_children(self) -> None:
        """The worker first, so that it can still report what it finishes."""
        while self._children:
            self._children.popitem()[1].stop()

    def _log(self, name: str) -> Path:
        return self._config.logs / f"{name}.log"

    def _broker_spec(self) -> ChildSpec:
        return ChildSpec(
            name="broker",
            command=[
                sys.executable,
                "-P",
                "-m",
                "broker.cli",
                "broker",
                "--listen",
                self.address,
                "--migrate",
            ],
            log=self._log("broker"),
            ready="ready listen=",
            # Not on the command line, which every user of the machine can read.
            environment={"REPRISE_DATABASE_URL": self.database_url},
            # It has no state to lose, and must let go of its address for the next start.
            on_parent_death=signal.SIGKILL,
            stop_seconds=10,
        )

    def _worker_spec(self) -> ChildSpec:
        return ChildSpec(
            name="worker",
            command=[sys.executable, "-P", "-m", "worker", f"--broker={self.address}", f"--drain-seconds={DRAIN_SECONDS}"],
            log=self._log("worker"),
            ready="ready worker_id=",
            environment={"REPRISE_DATABASE_URL": None},
            on_parent_death=signal.SIGTERM,
            stop_seconds=DRAIN_SECONDS + 15,  # it kills, reports and releases after that
        )  # fmt: skip
