"""Ends what an earlier server left in a data directory when its owner and it could not end cleanly.

Called only while this process holds the directory's lock, so no live owner exists. A pid file alone proves nothing: after a
reboot, and in every new container, its number belongs to some other process, and PostgreSQL would refuse to start because of it.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_PATIENCE_SECONDS = 20.0


def clear_leftovers(data: Path) -> None:
    """Returns when no server process works in `data` and no stale pid file is left.

    Where there is no /proc (macOS), PostgreSQL's own check of the pid file decides. Raises TimeoutError if one does not end.
    """
    pid_file = data / "postmaster.pid"
    if not _PROC.joinpath("self").exists() or not data.exists():
        return
    _stop(data)
    pid_file.unlink(missing_ok=True)


def _stop(data: Path) -> None:
    """Fast shutdown first. What is still there after half of the patience is told to go without clean-up, which is safe."""
    started = time.monotonic()
    signalled: dict[int, signal.Signals] = {}
    while processes := _server_processes(data):
        waited = time.monotonic() - started
        if waited > _PATIENCE_SECONDS:
            raise TimeoutError(
                f"a PostgreSQL left from an earlier run does not end: process {min(processes)}"
            )
        wanted = signal.SIGINT if waited < _PATIENCE_SECONDS / 2 else signal.SIGQUIT
        for pid in processes & _postmasters(data) or processes:
            if signalled.get(pid) != wanted:
                signalled[pid] = wanted
                with suppress(ProcessLookupError):
                    os.kill(pid, wanted)
        time.sleep(0.02)


def _postmasters(data: Path) -> set[int]:
    try:
        return {int((data / "postmaster.pid").read_text().split()[0])}
    except (FileNotFoundError, IndexError, ValueError):
        return set()


def _server_processes(data: Path) -> set[int]:
    """Every live PostgreSQL process whose working directory is `data`: the postmaster changes into it and backends inherit it."""
    wanted = data.resolve()
    found = set()
    for entry in _PROC.iterdir():
        # Processes of other users and ones that have just ended cannot be read; zombies have no working directory any more.
        with suppress(OSError):
            if (
                entry.name.isdigit()
                and (entry / "cwd").readlink() == wanted
                and (entry / "exe").readlink().name.startswith("postgres")
            ):
                found.add(int(entry.name))
    return found
