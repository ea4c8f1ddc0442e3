"""What the command line does with the broker's refusals."""

import socket

import pytest
from google.rpc.code_pb2 import (  # type: ignore[import-untyped]
    ALREADY_EXISTS,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
)
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from reprise.v1.broker_service_pb2 import EnqueuedJob, EnqueueResponse
from reprise.v1.queue_service_pb2 import ListQueuesResponse, Queue

from tests.unit.cli.peer import Peer, Reprise, come_again, refusal

ENQUEUED = EnqueueResponse(jobs=[EnqueuedJob(job_id=42, created=True)])


def test_each_bad_field_is_a_line_that_starts_with_its_path(peer: Peer, run: Reprise) -> None:
    faults = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field="jobs[0].kind", description="is missing"),
            BadRequest.FieldViolation(field="jobs[0].priority", description="must be -100 to 100"),
            BadRequest.FieldViolation(description="and 3 more"),
        ]
    )
    peer.answers("Enqueue", refusal(INVALID_ARGUMENT, "the job is wrong", faults))

    result = run("enqueue", "--kind", "python")

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "jobs[0].kind: is missing",
        "jobs[0].priority: must be -100 to 100",
        "and 3 more",
    ]
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (refusal(NOT_FOUND, "job 7: not found"), "job 7: not found"),
        (
            refusal(NOT_FOUND, "no playbook 'a/b'", ErrorInfo(reason="PLAYBOOK_NOT_FOUND")),
            "no playbook 'a/b': `reprise playbooks` lists those that are registered",
        ),
        (refusal(ALREADY_EXISTS, "key k: used before"), "key k: used before"),
        (refusal(NOT_FOUND, "two\nlines\x1b[31m red"), "two lines [31m red"),
        (refusal(NOT_FOUND, ""), "not found"),
        (refusal(UNIMPLEMENTED, "not yet"), "the broker at ADDRESS does not offer this: not yet"),
        (refusal(INTERNAL, ""), "the broker at ADDRESS failed: see its log"),
        (refusal(UNAVAILABLE, ""), "no broker answers at ADDRESS: start one with `reprise dev`"),
        (
            refusal(RESOURCE_EXHAUSTED, "backlog full", come_again(2)),
            "backlog full (the broker asks to try again in 0.002 s)",
        ),
    ],
)
def test_any_other_error_is_one_clear_line(peer: Peer, run: Reprise, status: Status, line: str) -> None:
    peer.answers("ListQueues", status)

    result = run("queues")

    assert result.exit_code == 1
    assert result.stderr == line.replace("ADDRESS", peer.address) + "\n"


@pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
def test_call_is_repeated_when_the_broker_asks_for_it(peer: Peer, run: Reprise, code: int) -> None:
    peer.answers(
        "Enqueue", refusal(code, "not now", come_again()), refusal(code, "not now", come_again()), ENQUEUED
    )

    result = run("enqueue", "--kind", "python")

    assert (result.exit_code, result.stdout) == (0, "42\n")
    keys = {request.jobs[0].idempotency_key for request in peer.asked}
    assert len(peer.asked) == 3
    assert len(keys) == 1
    assert keys != {""}


def test_call_is_given_up_after_four_repeats(peer: Peer, run: Reprise) -> None:
    peer.answers("ListQueues", refusal(UNAVAILABLE, "database away", come_again()))

    result = run("queues")

    assert result.exit_code == 1
    assert len(peer.asked) == 5


def test_error_without_retry_info_is_not_repeated(peer: Peer, run: Reprise) -> None:
    peer.answers("ListQueues", refusal(UNAVAILABLE, "gone"))

    run("queues")

    assert len(peer.asked) == 1


def test_broker_that_is_not_there_is_named_with_the_way_to_start_one(run: Reprise) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        result = run("queues", "--broker", address)

    assert result.exit_code == 1
    assert result.stderr == f"no broker answers at {address}: start one with `reprise dev`\n"


def test_broker_may_be_named_after_the_command(peer: Peer, run: Reprise) -> None:
    peer.answers("ListQueues", ListQueuesResponse(queues=[Queue(name="default", queued=3)]))

    result = run("--broker", "127.0.0.1:1", "queues", "--broker", peer.address)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[:2] == ["default", "3"]
