"""One content, three looks: a terminal, a pipe, JSON."""

import os
import pty
import subprocess
import sys
from collections.abc import Mapping

import pytest
from reprise.v1.job_pb2 import JOB_STATUS_DEAD, Failure, Job
from reprise.v1.playbook_service_pb2 import Execution
from reprise.v1.queue_service_pb2 import ListJobsResponse

from broker.cli.output import Column, Span, as_json, one_line, print_table
from tests.unit.cli.peer import Peer, at

DEAD = Job(
    job_id=7, status=JOB_STATUS_DEAD, created_at=at(0), last_failure=Failure(message="[bold]no[/bold]")
)


def on_terminal(peer: Peer, *arguments: str, **environment: str) -> str:
    """What `reprise` writes to a terminal of 200 columns."""
    here, there = pty.openpty()
    finished = subprocess.run(
        [sys.executable, "-m", "broker.cli", "--broker", peer.address, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=there,
        env={**_plain_environment(), "TERM": "xterm", "COLUMNS": "200", "TZ": "Asia/Tokyo", **environment},
        check=True,
    )
    os.close(there)
    assert finished.returncode == 0
    written = os.read(here, 65536).decode()
    os.close(here)
    return written


def _plain_environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}


def test_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(Span("a"), Span("1"), Span("x")), (Span("long name"), Span("1000"), Span(""))]

    print_table([Column("name"), Column("count", number=True), Column("note")], rows)

    assert capsys.readouterr().out == (
        "name       count  note\n"  #
        "a              1  x\n"
        "long name   1000  -\n"
    )


def test_empty_table_shows_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([Column("name"), Column("count")], [])

    assert capsys.readouterr().out == "name  count\n"


@pytest.mark.parametrize("text", ["a\nb", "a\x1b]0;title\x07b", "a\x9bb", "a\u2028b", "a\x00b", "a\r\nb"])
def test_text_of_others_cannot_steer_the_terminal(text: str) -> None:
    assert not set("\n\r\x1b\x07\x9b\u2028\x00") & set(one_line(text))


def test_terminal_gets_colour_and_local_time_and_no_markup(peer: Peer) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[DEAD]))

    written = on_terminal(peer, "jobs")

    assert "\x1b[31mdead" in written
    assert "2027-01-15 17:00:00" in written
    assert "[bold]no[/bold]" in written


@pytest.mark.parametrize("command", ["queue", "jobs"])
def test_narrow_terminal_cuts_no_id(peer: Peer, command: str) -> None:
    long_ago = Job(job_id=2**62, execution_id=2**62 + 1, queue="notifications", kind="send-email")
    peer.answers("ListJobs", ListJobsResponse(jobs=[long_ago]))

    written = on_terminal(peer, command, COLUMNS="60")

    assert str(2**62) in written
    assert "notifications" in written
    assert "…" not in written


def test_no_color_is_respected(peer: Peer) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[DEAD]))

    assert "\x1b[31m" not in on_terminal(peer, "jobs", NO_COLOR="1")


def test_json_on_a_terminal_is_json(peer: Peer) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[DEAD]))

    assert "\x1b" not in on_terminal(peer, "jobs", "--json")


def test_reader_that_goes_away_is_no_error(peer: Peer) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[DEAD] * 1000, next_page_token="more"))
    command = [sys.executable, "-m", "broker.cli", "--broker", peer.address, "jobs", "--limit", "5000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()

    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


def test_whole_numbers_of_values_are_shown_as_they_were_written() -> None:
    execution = Execution()
    execution.workload.update({"numbers": [2, 0.5, 1e300]})

    assert str(as_json(execution)["workload"]) == "{'numbers': [2, 0.5, 1e+300]}"
