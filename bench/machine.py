"""What a figure depends on: the machine, the versions, the settings of the database."""

import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg

from bench.testbed import running_database
from broker.embedded import Source

_PACKAGES = ("reprise", "grpcio", "protobuf", "psycopg")
_SETTINGS = (
    "fsync", "synchronous_commit", "full_page_writes", "wal_compression", "shared_buffers", "max_wal_size",
    "autovacuum_naptime", "checkpoint_timeout",
)  # fmt: skip


def describe(postgres: Source) -> dict[str, str]:
    """Facts by name, in the order to show them; starts a server for a moment to ask it."""
    facts = {
        "cores": f"{os.cpu_count()} ({_cpu_model()})",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "load before": " ".join(f"{average:.2f}" for average in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        running_database(Path(folder), (postgres,)) as database,
        psycopg.connect(database.url) as connection,
    ):
        facts["postgresql"] = str(connection.execute("SHOW server_version").fetchall()[0][0])
        for setting in _SETTINGS:
            value = connection.execute("SELECT current_setting(%s)", (setting,)).fetchall()[0][0]
            facts[setting] = str(value)
    return facts


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
