"""The command line against a real broker, a real worker and a real PostgreSQL: what a new user types, in that order."""

import asyncio
import json
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.fixtures_broker import StartProcess
from tests.processes import Process

StartBroker = Callable[[], Awaitable[tuple[Process, str]]]
Reprise = Callable[..., Awaitable[Process]]

PLAYBOOK = """
apiVersion: noetl.io/v1
kind: Playbook
metadata: {name: always_fails, path: tests/always_fails}
workload: {error: Test retry}
workflow:
  - step: start
    next: [fail_task]
  - step: fail_task
    type: python
    data: {error: "{{ workload.error }}"}
    code: |
      def main(input_data):
          raise ValueError(input_data["error"])
    retry:
      max_attempts: 3
      initial_delay: 0.02
      retry_when: "{{ error != None }}"
    next: [end]
  - step: end
"""
FAULTY = PLAYBOOK.replace("max_attempts: 3", "max_atempts: 3").replace(
    "next: [fail_task]", "next: [fail_tusk]"
)


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    file = tmp_path / "always_fails.yaml"
    file.write_text(PLAYBOOK)
    return file


@pytest.fixture
def faulty_playbook(tmp_path: Path) -> Path:
    file = tmp_path / "faulty.yaml"
    file.write_text(FAULTY)
    return file


@pytest.fixture
def reprise(start_process: StartProcess) -> Reprise:
    """Runs `reprise` as a process of its own; returns it once it has ended."""

    async def run(*arguments: str) -> Process:
        process = await start_process("broker.cli", *arguments)
        await process.exit_code()
        return process

    return run


async def test_new_user_registers_runs_watches_and_looks(
    start_broker: StartBroker, start_worker: StartProcess, reprise: Reprise, playbook: Path
) -> None:
    _, address = await start_broker()
    await start_worker(address)

    registered = await reprise("--broker", address, "register", str(playbook))
    assert registered.output.splitlines()[1].split() == ["tests/always_fails", "1", "created"]

    watched = await reprise(
        "--broker", address, "run", "tests/always_fails", "--set", "error=from here", "--watch"
    )
    assert await watched.exit_code() == 1
    told = [line.split(None, 2)[-1].strip() for line in watched.output.splitlines() if "fail_task" in line]
    attempts = [line for line in told if re.match(r"\d/3", line)]
    decisions = [line.split(None, 1)[1] for line in attempts if "retry in" in line or "dead" in line]
    assert [line for line in attempts if "attempt failed: ValueError: from here" in line] == [
        f"{attempt}/3  attempt failed: ValueError: from here" for attempt in (1, 2, 3)
    ]
    assert decisions == [
        "retry in 20 ms: retry_when is true",
        "retry in 30 ms: retry_when is true",
        "dead: no attempt is left",
    ]
    assert "failed at step fail_task" in watched.output.splitlines()[-1]

    execution_id = watched.output.split()[1]
    queue = await reprise("--broker", address, "queue", "--execution", execution_id, "--json")
    [row] = json.loads(queue.output)
    assert (row["node_name"], row["status"], row["attempts"], row["max_attempts"]) == (
        "fail_task",
        "dead",
        3,
        3,
    )

    events = await reprise("--broker", address, "events", execution_id, "--type", "action_retry")
    assert len(events.output.splitlines()) == 1 + 2
    followed = await reprise("--broker", address, "events", execution_id, "--follow", "--json")
    assert json.loads(followed.output.splitlines()[0])["event_type"] == "execution_started"

    shown = await reprise("--broker", address, "executions", execution_id)
    assert "fail_task" in shown.output
    job = await reprise("--broker", address, "job", row["queue_id"])
    assert "dead: no attempt is left" in job.output


async def test_watch_outlives_the_broker_that_it_began_with(
    start_broker: StartBroker,
    start_process: StartProcess,
    start_worker: StartProcess,
    reprise: Reprise,
    playbook: Path,
    database_url: str,
) -> None:
    first, address = await start_broker()
    await reprise("--broker", address, "register", str(playbook))
    command = [
        sys.executable,
        "-m",
        "broker.cli",
        "--broker",
        address,
        "run",
        "tests/always_fails",
        "--watch",
    ]
    watch = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    assert watch.stdout is not None
    told = [await watch.stdout.readline(), await watch.stdout.readline()]

    await first.stop(signal.SIGKILL)
    second = await start_process("broker.cli", "broker", "--listen", address, "--database-url", database_url)
    await second.line_with("ready listen=")
    await start_worker(address)

    rest, complaints = await watch.communicate()
    lines = [line.decode() for line in (*told, *rest.splitlines())]
    assert watch.returncode == 1
    assert "broke off, trying again" in complaints.decode()
    assert sum("execution started" in line for line in lines) == 1
    assert sum("attempt failed" in line for line in lines) == 3
    assert "failed at step fail_task" in lines[-1]


async def test_faults_of_a_playbook_come_with_their_places(
    broker_address: str, reprise: Reprise, faulty_playbook: Path
) -> None:
    refused = await reprise("--broker", broker_address, "register", str(faulty_playbook))

    assert await refused.exit_code() == 1
    places = {int(line.removeprefix(f"{faulty_playbook}:").split(":")[0]): line for line in refused.lines}
    assert "fail_tusk" in places[8]
    assert "max_atempts" in places[16]


async def test_job_goes_in_is_seen_and_its_faults_are_named(broker_address: str, reprise: Reprise) -> None:
    at = ("--broker", broker_address)

    first = await reprise(*at, "enqueue", "--kind", "send", "--queue", "mail", "--key", "k", "--retry", "5")
    again = await reprise(*at, "enqueue", "--kind", "send", "--queue", "mail", "--key", "k", "--retry", "5")
    assert first.output.strip().isdigit()
    assert again.output == first.output
    assert again.lines == ["it was there already"]

    jobs = await reprise(*at, "jobs", "--queue", "mail", "--status", "queued")
    assert jobs.output.splitlines()[1].split()[:5] == [first.output.strip(), "mail", "send", "queued", "0/5"]
    queues = await reprise(*at, "queues")
    assert queues.output.splitlines()[1].split()[:2] == ["mail", "1"]

    refused = await reprise(*at, "enqueue", "--kind", "no blanks", "--priority", "500")
    assert await refused.exit_code() == 1
    assert [line.split(":")[0] for line in sorted(refused.lines)] == ["jobs[0].kind", "jobs[0].priority"]

    unknown = await reprise(*at, "job", "1")
    assert await unknown.exit_code() == 1
    assert len(unknown.lines) == 1


async def test_database_is_migrated_once_and_a_broker_needs_it(
    empty_database_url: str, reprise: Reprise
) -> None:
    refused = await reprise("broker", "--listen", "127.0.0.1:0", "--database-url", empty_database_url)
    assert await refused.exit_code() == 1
    assert "reprise migrate" in refused.lines[-1]

    first = await reprise("migrate", "--database-url", empty_database_url)
    again = await reprise("migrate", "--database-url", empty_database_url)

    assert first.output.startswith("applied 0001_")
    assert again.output == "up to date\n"


async def test_broker_process_is_healthy_until_it_is_told_to_stop(
    start_broker: StartBroker, reprise: Reprise
) -> None:
    broker, address = await start_broker()
    assert await (await reprise("--broker", address, "health")).exit_code() == 0

    assert await broker.stop(signal.SIGTERM) == 0

    gone = await reprise("--broker", address, "health")
    assert await gone.exit_code() == 1
    assert gone.lines == [f"no broker answers at {address}: start one with `reprise dev`"]


async def test_second_broker_on_the_same_address_says_so(
    broker_address: str, database_url: str, reprise: Reprise
) -> None:
    second = await reprise("broker", "--listen", broker_address, "--database-url", database_url)

    assert await second.exit_code() == 1
    assert f"cannot listen on {broker_address}" in second.lines[-1]


async def test_worker_explains_its_own_options(reprise: Reprise) -> None:
    explained = await reprise("worker", "--help")

    assert await explained.exit_code() == 0
    assert "--queues" in explained.output


@pytest.mark.parametrize(("command", "code"), [("broker", 0), ("migrate", 1)])
async def test_start_that_waits_for_its_database_ends_when_told_to(
    start_process: StartProcess, command: str, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing"
        process = await start_process("broker.cli", command, "--database-url", url)
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            assert await process.stop(signal.SIGTERM) == code
