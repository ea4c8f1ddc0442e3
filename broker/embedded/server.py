"""One PostgreSQL server as a direct child of this process, on a data directory that outlives it.

Owns the server's life: made on first use, started, stopped fast, and never left running. It listens on a unix socket only, in a
directory that nobody but its owner (and root) may enter: on TCP, every user of the machine would be its superuser.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from broker.embedded.binaries import Binaries
from broker.embedded.hold import hold
from broker.embedded.identity import Identity, launch_command
from broker.embedded.leftovers import clear_leftovers
from broker.embedded.relocation import reachable_by_nobody

USER = "reprise"
DATABASE = "reprise"
# A unix socket's path must fit sockaddr_un.sun_path: 108 bytes on Linux, 104 on macOS, with the closing NUL.
_LONGEST_SOCKET_PATH = 103
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0

# For many small committed statements on short-lived rows. Durability stays on: a committed job survives a power cut.
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    # Rows of the lanes live for milliseconds; at the default of a minute, dead ones pile up in front of the leaser.
    "autovacuum_naptime": "5s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}


class PostgresFailed(Exception):
    """PostgreSQL could not be made or started; the text says why and what to do."""


class PostgresServer:
    """A server on the data directory `data`, which is made if it is missing; used as a context manager or by start and stop.

    `log` takes what the server writes. `settings` override the server's own. `durable=False` makes a throw-away server that may lose
    everything in a crash. One process at a time owns a data directory. Start it from the main thread (see `launch_command`).
    """

    def __init__(
        self,
        data: Path,
        binaries: Binaries,
        *,
        log: Path,
        settings: Mapping[str, str] | None = None,
        durable: bool = True,
        identity: Identity | None = None,
    ) -> None:
        self._data = data.absolute()
        self._identity = identity or Identity.choose()
        self._binaries = reachable_by_nobody(binaries) if self._identity is Identity.NOBODY else binaries
        self._log = log
        lossy = {} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self._settings = {**_SETTINGS, **lossy, **(settings or {})}
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None
        self._lock: BufferedWriter | None = None

    @property
    def version(self) -> str:
        """The version of the server's programs, for instance "18.6"."""
        return self._binaries.version

    def database_url(self, database: str = DATABASE) -> str:
        """A URL that psql and every libpq client take. Only while the server runs."""
        if self._socket_directory is None:
            raise RuntimeError("the server does not run")
        return f"postgresql://{USER}@/{quote(database)}?host={quote(str(self._socket_directory))}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the server takes connections. Stops first what an earlier owner left running.

        Raises PostgresFailed: the directory is in use, was made by another major version, or the server would not start.
        """
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            clear_leftovers(self._data)
            if not (self._data / "PG_VERSION").exists():
                self._initialize()
            self._check_version()
            self._socket_directory = self._choose_socket_directory()
            self._launch(self._socket_directory)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server at once and cleanly: open transactions are rolled back. Does nothing if it does not run."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None
        if self._socket_directory is not None and self._socket_directory != self._data:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
        self._socket_directory = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def wait(self, seconds: float) -> int | None:
        """The exit code of a server that ended by itself within `seconds`, else None."""
        if self._process is None:
            return None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def _take_lock(self) -> None:
        """Holds the directory for this process."""
        self._lock = hold(self._data.with_name(f"{self._data.name}.lock"))
        if self._lock is None:
            raise PostgresFailed(
                f"{self._data} is in use by another process: stop that one, or choose another data directory"
            )

    def _initialize(self) -> None:
        """Makes the data directory under another name first, so that a killed start leaves no half-made one."""
        unfinished = self._data.with_name(f"{self._data.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        self._run(
            "initdb",
            f"--pgdata={unfinished}",
            f"--username={USER}",
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=reject",
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        )
        fast = [] if self._durable else ["-F"]
        self._run(
            "postgres",
            "--single",
            *fast,
            "-D",
            str(unfinished),
            "postgres",
            text=f"CREATE DATABASE {DATABASE}\n",
        )
        unfinished.rename(self._data)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        command = launch_command(self._identity, [self._binaries.program(program), *arguments])
        done = subprocess.run(  # noqa: S603
            command, input=text, capture_output=True, text=True, env=_environment(), cwd="/", check=False
        )
        if done.returncode != 0:
            raise PostgresFailed(f"{program} failed: {self._explained(done.stderr)}")

    def _check_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != str(self._binaries.major):
            raise PostgresFailed(
                f"{self._data} was made by PostgreSQL {made_by}, and the programs in {self._binaries.directory} are "
                f"PostgreSQL {self._binaries.version}: install PostgreSQL {made_by}, or choose another data directory"
            )

    def _choose_socket_directory(self) -> Path:
        is_short = len(os.fsencode(self._data / ".s.PGSQL.5432")) <= _LONGEST_SOCKET_PATH
        if is_short and "," not in str(self._data):  # which parts one directory, or host, from the next
            return self._data
        directory = Path(tempfile.mkdtemp(prefix="reprise-"))
        self._hand_over(directory)
        return directory

    def _hand_over(self, directory: Path) -> None:
        """Gives a directory that we made to the user that the server runs as."""
        if self._identity is Identity.NOBODY:
            user = pwd.getpwnam("nobody")
            os.chown(directory, user.pw_uid, user.pw_gid)

    def _launch(self, socket_directory: Path) -> None:
        settings = {**self._settings, "unix_socket_directories": str(socket_directory)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = launch_command(
            self._identity, [self._binaries.program("postgres"), "-D", self._data, *options]
        )
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal must reach the owner, who stops its clients first.
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), cwd="/",
                start_new_session=True,
            )  # fmt: skip

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            code = self.wait(0.01)
            if code is not None:
                self._process = None
                raise PostgresFailed(
                    f"PostgreSQL ended with code {code} while starting: {self._explained(_tail(self._log))}"
                )
            if time.monotonic() > give_up_at:
                raise PostgresFailed(
                    f"PostgreSQL did not start within {_START_SECONDS:.0f} s, see {self._log}"
                )

    def _is_ready(self) -> bool:
        """Whether the server says so in the eighth line of its pid file, as pg_ctl looks at it."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return (
            self._process is not None
            and len(lines) >= 8
            and lines[0] == str(self._process.pid)
            and lines[7].strip() == "ready"
        )

    def _explained(self, output: str) -> str:
        if self._identity is Identity.NOBODY and "Permission denied" in output:
            return (
                f"{output.strip()}\nPostgreSQL does not run as root, and the user nobody cannot enter {self._data.parent}: "
                "choose a data directory that everybody may enter, for instance below /var/lib"
            )
        return output.strip()


def _environment() -> dict[str, str]:
    """This process's environment without what would steer PostgreSQL elsewhere (PGDATA, PGPORT, LC_ALL, …)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
