"""A part as a child process: what is told of one that does not become ready."""

import signal
import sys
from pathlib import Path

import pytest

from broker.supervisor.child import Child, ChildFailed, ChildSpec


def failure_of(written: str, log: Path) -> list[str]:
    """The lines that are told of a part that writes this and ends with code 3."""
    log.write_text("Error: of an earlier run\n")
    code = f"import sys; sys.stderr.write({written!r}); sys.exit(3)"
    command = [sys.executable, "-c", code]
    child = Child(ChildSpec("broker", command, log, "ready ", {}, signal.SIGKILL, stop_seconds=5))
    with pytest.raises(ChildFailed) as failed:
        child.wait_until_ready()
    child.stop()
    return str(failed.value).splitlines()


def test_error_that_a_part_gave_comes_first_and_without_what_it_logged_before(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    assert failure_of("INFO migrated\nnoise\nError: no room\nfree some\n", log) == [
        "no room",
        "free some",
        f"the broker ended with code 3, see {log}",
    ]


def test_part_that_gave_no_error_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    written = "".join(f"line {number}\n" for number in range(20))
    assert failure_of(written, log) == [
        f"the broker ended with code 3, see {log}:",
        *(f"line {number}" for number in range(8, 20)),
    ]
