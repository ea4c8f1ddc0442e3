"""The command line explains itself, fast."""

import subprocess
import sys

import pytest

from broker.cli.app import reprise
from broker.cli.lazy import LazyCommand
from tests.unit.cli.peer import Reprise

COMMANDS = [command for command in reprise.commands.values() if isinstance(command, LazyCommand)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_listed_command_exists_under_its_name(command: LazyCommand) -> None:
    loaded = command.load()

    assert loaded.name == command.name
    assert loaded.help


def test_help_lists_every_command_with_what_it_does(run: Reprise) -> None:
    result = run("--help")

    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"{command.name} " in result.stdout
        assert command.get_short_help_str(80) in result.stdout


def test_help_waits_for_no_heavy_import() -> None:
    listing = (
        "import atexit, sys; from broker.cli import main; sys.argv = ['reprise', '--help'];"
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); main()"
    )
    finished = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)

    assert not {"grpc", "google.protobuf", "psycopg", "rich", "asyncio"} & set(finished.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["jobz"], ["jobs", "--statuz"], ["job"], ["job", "x"], ["events"], ["--nope"]]
)
def test_wrong_use_ends_with_2(run: Reprise, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_mistyped_command_brings_the_likely_one_to_mind(run: Reprise) -> None:
    assert "'enqueue'" in run("enqeue").stderr
