"""health, broker, migrate and worker: processes, and whether they are well."""

import os
import subprocess
import sys

import pytest
from google.rpc.code_pb2 import NOT_FOUND  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2 import HealthCheckResponse

from tests.unit.cli.peer import Peer, Reprise, refusal


def test_health_of_a_serving_broker_is_0(peer: Peer, run: Reprise) -> None:
    peer.answers("Check", HealthCheckResponse(status=HealthCheckResponse.SERVING))

    result = run("health")

    assert (result.exit_code, result.stdout) == (0, "serving\n")


def test_health_of_a_broker_that_does_not_serve_is_1(peer: Peer, run: Reprise) -> None:
    peer.answers("Check", HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING))

    result = run("health")

    assert result.exit_code == 1
    assert result.stderr == f"{peer.address} is not serving\n"


def test_health_of_an_unknown_service_is_1(peer: Peer, run: Reprise) -> None:
    peer.answers("Check", refusal(NOT_FOUND, "unknown service"))

    assert run("health", "--service", "nope").exit_code == 1
    assert peer.asked[0].service == "nope"


def test_worker_becomes_the_worker_process_with_its_arguments_untouched(
    peer: Peer, run: Reprise, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: became.append(call))

    run("worker", "--queues", "a,b", "--help", "--", "-x")

    [(program, arguments, environment)] = became
    assert program == sys.executable
    assert arguments[-7:] == ["-m", "worker", "--queues", "a,b", "--help", "--", "-x"]
    assert environment["REPRISE_BROKER"] == peer.address


def test_worker_explains_itself_under_the_name_that_people_type() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "worker", "-h"], capture_output=True, text=True, check=True
    )

    assert finished.stdout.startswith("Usage: reprise worker ")


@pytest.mark.parametrize("command", ["broker", "migrate"])
def test_database_must_be_named(run: Reprise, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.delenv("REPRISE_DATABASE_URL", raising=False)

    result = run(command)

    assert result.exit_code == 2
    assert "REPRISE_DATABASE_URL" in result.stderr


def test_migrate_says_in_one_line_that_the_database_is_away(run: Reprise) -> None:
    result = run("migrate", "--database-url", "postgresql://127.0.0.1:1/nothing?connect_timeout=2")

    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "127.0.0.1" in result.stderr
