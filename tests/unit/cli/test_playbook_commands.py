"""register, playbooks, run, executions, cancel: what is asked of the broker, and what people see."""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc.code_pb2 import INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from reprise.v1.job_pb2 import JOB_STATUS_DEAD, Event, Failure
from reprise.v1.playbook_service_pb2 import (
    EXECUTION_STATUS_CANCELLED,
    EXECUTION_STATUS_COMPLETED,
    EXECUTION_STATUS_FAILED,
    EXECUTION_STATUS_RUNNING,
    CancelExecutionResponse,
    Execution,
    ExecutionStatus,
    GetExecutionResponse,
    GetPlaybookResponse,
    ListExecutionsResponse,
    ListPlaybooksResponse,
    Playbook,
    RegisterPlaybookResponse,
    StartExecutionResponse,
    StepState,
    WatchExecutionResponse,
)

from broker.cli import watching
from tests.unit.cli.peer import Peer, Reprise, at, come_again, refusal

STARTED = StartExecutionResponse(execution_id=42, created=True)


def happened(event_id: int, event_type: str, **fields: object) -> WatchExecutionResponse:
    facts = json.dumps(fields.pop("facts", {}))
    event = Event(event_id=event_id, event_type=event_type, created_at=at(event_id), result_json=facts)
    for name, value in fields.items():
        setattr(event, name, value)
    return WatchExecutionResponse(event=event)


def ended(status: ExecutionStatus.ValueType) -> WatchExecutionResponse:
    execution = Execution(execution_id=42, status=status, started_at=at(0), finished_at=at(2.5))
    if status == EXECUTION_STATUS_FAILED:
        execution.failed_step = "fetch"
        execution.failure.CopyFrom(Failure(type="ValueError", message="no"))
    return WatchExecutionResponse(execution=execution)


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    file = tmp_path / "play.yaml"
    file.write_text("metadata: {path: a/b}\n")
    return file


def test_register_prints_path_version_and_whether_it_is_new(peer: Peer, run: Reprise, playbook: Path) -> None:
    peer.answers(
        "RegisterPlaybook",
        RegisterPlaybookResponse(playbook=Playbook(path="a/b", version=2), created=True),
        RegisterPlaybookResponse(playbook=Playbook(path="c", version=1), created=False),
    )

    result = run("register", str(playbook), str(playbook))

    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["a/b", "2", "created"],
        ["c", "1", "unchanged"],
    ]
    assert peer.asked[0].yaml == "metadata: {path: a/b}\n"


def test_faults_of_a_playbook_are_lines_that_editors_understand(
    peer: Peer, run: Reprise, playbook: Path
) -> None:
    faults = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field="yaml", description="line 7, column 5: workflow[0].next: no step 'fetch'"
            ),
            BadRequest.FieldViolation(field="yaml", description="and 2 more"),
        ]
    )
    registered = RegisterPlaybookResponse(playbook=Playbook(path="a/b", version=1), created=True)
    peer.answers("RegisterPlaybook", refusal(INVALID_ARGUMENT, "faults", faults), registered)

    result = run("register", str(playbook), str(playbook))

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{playbook}:7:5: workflow[0].next: no step 'fetch'",
        f"{playbook}: and 2 more",
    ]
    assert "a/b" in result.stdout, "one faulty file must not keep the others out"


def test_files_that_cannot_be_read_are_refused_by_name_and_keep_no_other_out(
    peer: Peer, run: Reprise, playbook: Path, tmp_path: Path
) -> None:
    no_text, missing = tmp_path / "no_text.yaml", tmp_path / "missing.yaml"
    no_text.write_bytes(b"\xff\xfe")
    fault = BadRequest.FieldViolation(field="yaml", description="line 7, column 5: no step 'fetch'")
    peer.answers(
        "RegisterPlaybook",
        refusal(INVALID_ARGUMENT, "faults", BadRequest(field_violations=[fault])),
        RegisterPlaybookResponse(playbook=Playbook(path="a/b", version=1), created=True),
    )

    result = run("register", str(missing), str(playbook), str(no_text), str(tmp_path), str(playbook))

    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{missing}: No such file or directory",
        f"{playbook}:7:5: no step 'fetch'",
        f"{no_text}: is no UTF-8 text: byte 0 is wrong",
        f"{tmp_path}: Is a directory",
    ]
    assert "a/b" in result.stdout


def test_playbooks_lists_them_and_shows_the_yaml_of_one(peer: Peer, run: Reprise) -> None:
    listed = Playbook(path="a/b", version=3, name="demo", created_at=at(0))
    peer.answers("ListPlaybooks", ListPlaybooksResponse(playbooks=[listed]))
    peer.answers(
        "GetPlaybook",
        GetPlaybookResponse(playbook=Playbook(path="a/b", version=2, yaml="metadata:\n  x: 1\n")),
    )

    assert run("playbooks").stdout.splitlines()[1].split() == ["a/b", "3", "2027-01-15T08:00:00.000Z", "demo"]
    assert run("playbooks", "a/b", "--version", "2").stdout == "metadata:\n  x: 1\n"
    assert peer.asked[-1].version == 2


@pytest.mark.parametrize(
    ("command", "method"),
    [
        (("run", "a/recovry"), "StartExecution"),
        (("run", "a/recovry", "--set", "x=1"), "GetPlaybook"),
        (("playbooks", "a/recovry"), "GetPlaybook"),
    ],
)
def test_path_that_is_unknown_is_told_with_the_one_that_was_meant(
    peer: Peer, run: Reprise, command: tuple[str, ...], method: str
) -> None:
    peer.answers(
        method, refusal(NOT_FOUND, "no playbook 'a/recovry'", ErrorInfo(reason="PLAYBOOK_NOT_FOUND"))
    )
    peer.answers(
        "ListPlaybooks", ListPlaybooksResponse(playbooks=[Playbook(path="a/recovery"), Playbook(path="b")])
    )

    result = run(*command)

    assert (result.exit_code, result.stderr) == (1, "no playbook 'a/recovry': did you mean 'a/recovery'?\n")


@pytest.mark.parametrize(
    "listed",
    [
        ListPlaybooksResponse(playbooks=[Playbook(path="quite/another")]),
        ListPlaybooksResponse(playbooks=[Playbook(path="a/b")]),
        refusal(UNAVAILABLE, "away"),
    ],
    ids=["none is alike", "the path is known, its version is not", "they cannot be listed"],
)
def test_path_like_which_there_is_none_is_told_where_to_look(
    peer: Peer, run: Reprise, listed: ListPlaybooksResponse | Status
) -> None:
    unknown = refusal(NOT_FOUND, "no version 7 of playbook 'a/b'", ErrorInfo(reason="PLAYBOOK_NOT_FOUND"))
    peer.answers("StartExecution", unknown)
    peer.answers("ListPlaybooks", listed)

    result = run("run", "a/b", "--version", "7")

    assert result.exit_code == 1
    assert (
        result.stderr
        == "no version 7 of playbook 'a/b': `reprise playbooks` lists those that are registered\n"
    )


def test_run_notes_settings_that_the_workload_does_not_know(peer: Peer, run: Reprise) -> None:
    text = "name: a/b\nworkload: {limit: 5, db: {host: h}, free: {}}\nworkflow: [{step: end}]"
    peer.answers("StartExecution", STARTED)
    peer.answers("GetPlaybook", GetPlaybookResponse(playbook=Playbook(yaml=text)))

    settings = ("limti=7", "limit=6", "db.port=5", "free.any=1")
    result = run("run", "a/b", *(word for setting in settings for word in ("--set", setting)))

    assert (result.exit_code, result.stdout) == (0, "42\n")
    assert result.stderr.splitlines() == [
        "the workload of a/b has no 'limti': did you mean 'limit'?",
        "the workload of a/b has no 'db.port'",
    ]


def test_run_overlays_the_workload_and_prints_the_id(peer: Peer, run: Reprise) -> None:
    peer.answers("StartExecution", STARTED)
    peer.answers("GetPlaybook", GetPlaybookResponse(playbook=Playbook(yaml="workflow: [{step: end}]")))

    result = run(
        "run", "a/b", "--workload", '{"db": {"host": "x"}, "n": 1}', "--set", "db.port=5", "--set", "n=two"
    )

    assert (result.exit_code, result.stdout) == (0, "42\n")
    asked = peer.asked[-1]
    assert asked.path == "a/b"
    assert dict(asked.workload["db"]) == {"host": "x", "port": 5}
    assert asked.workload["n"] == "two"
    assert asked.idempotency_key


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(EXECUTION_STATUS_COMPLETED, 0), (EXECUTION_STATUS_FAILED, 1), (EXECUTION_STATUS_CANCELLED, 1)],
)
def test_watch_ends_with_the_outcome_of_the_execution(
    peer: Peer, run: Reprise, status: ExecutionStatus.ValueType, exit_code: int
) -> None:
    peer.answers("StartExecution", STARTED)
    peer.answers("WatchExecution", [ended(status)])

    assert run("run", "a/b", "--watch").exit_code == exit_code


def test_watch_ends_with_the_result(peer: Peer, run: Reprise) -> None:
    done = ended(EXECUTION_STATUS_COMPLETED)
    ParseDict({"sent": True}, done.execution.result)
    peer.answers("StartExecution", STARTED)
    peer.answers("WatchExecution", [done])

    assert run("run", "a/b", "--watch").stdout.splitlines()[-1] == 'result  {"sent": true}'


def test_watch_tells_each_attempt_with_its_error_and_the_decision(peer: Peer, run: Reprise) -> None:
    about: dict[str, object] = {"job_id": 7, "step": "fetch", "attempt": 1}
    peer.answers("StartExecution", STARTED)
    peer.answers(
        "WatchExecution",
        [
            happened(1, "action_started", **about, worker_id="w1", facts={"max_attempts": 3}),
            happened(2, "action_error", **about, facts={"error": "no", "error_type": "ValueError"}),
            happened(3, "action_retry", **about, facts={"retry_delay_seconds": 1.5, "reason": "retry_when"}),
            ended(EXECUTION_STATUS_FAILED),
        ],
    )

    lines = run("run", "a/b", "--watch").stdout.splitlines()

    assert lines[0] == "execution 42 of a/b"
    assert [line.split(None, 3)[1:] for line in lines[1:4]] == [
        ["fetch", "1/3", "attempt started on w1"],
        ["fetch", "1/3", "attempt failed: ValueError: no"],
        ["fetch", "1/3", "retry in 1.5 s: retry_when is true"],
    ]
    assert lines[4] == "execution 42 failed at step fetch after 2.5 s: ValueError: no"


def test_watch_goes_on_where_it_was_when_the_broker_comes_back(
    peer: Peer, run: Reprise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0)
    first, second = happened(1, "execution_started"), happened(2, "step_started", step="fetch")
    peer.answers("StartExecution", STARTED)
    peer.answers(
        "WatchExecution",
        [first, refusal(UNAVAILABLE, "shutting down")],
        [refusal(UNAVAILABLE, "starting")],
        [first],
        [first, second, ended(EXECUTION_STATUS_COMPLETED)],
    )

    result = run("run", "a/b", "--watch", "--json")

    assert result.exit_code == 0
    updates = [json.loads(line) for line in result.stdout.splitlines()]
    assert [update["event"]["event_id"] for update in updates[:-1]] == ["1", "2"]
    assert updates[-1]["execution"]["status"] == "EXECUTION_STATUS_COMPLETED"
    assert result.stderr.count("broke off, trying again") == 1


@pytest.mark.parametrize(
    "error", [refusal(NOT_FOUND, "execution 42: not found"), refusal(UNAVAILABLE, "away")]
)
def test_watch_that_cannot_begin_fails_at_once(peer: Peer, run: Reprise, error: Message) -> None:
    peer.answers("WatchExecution", [error])

    result = run("events", "42", "--follow")

    assert result.exit_code == 1
    assert len(peer.asked) == 1


def test_watch_waits_for_a_broker_that_says_when_to_come_again(
    peer: Peer, run: Reprise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0)
    away = refusal(UNAVAILABLE, "database away", come_again())
    peer.answers(
        "WatchExecution", [away], [happened(1, "execution_started"), ended(EXECUTION_STATUS_COMPLETED)]
    )

    result = run("events", "42", "--follow")

    assert result.exit_code == 0
    assert "execution started" in result.stdout


def test_executions_lists_them_by_status(peer: Peer, run: Reprise) -> None:
    running = Execution(
        execution_id=42, path="a/b", version=1, status=EXECUTION_STATUS_RUNNING, started_at=at(0)
    )
    peer.answers("ListExecutions", ListExecutionsResponse(executions=[running]))

    result = run("executions", "--status", "running", "--status", "failed")

    assert result.stdout.splitlines()[1].split()[:4] == ["42", "a/b", "1", "running"]
    assert list(peer.asked[0].statuses) == [EXECUTION_STATUS_RUNNING, EXECUTION_STATUS_FAILED]


def test_executions_shows_one_with_its_steps(peer: Peer, run: Reprise) -> None:
    execution = ended(EXECUTION_STATUS_FAILED).execution
    execution.steps.append(StepState(step="start"))
    execution.steps.append(
        StepState(step="fetch", job_id=7, status=JOB_STATUS_DEAD, attempts=3, max_attempts=3)
    )
    execution.workload.update({"n": 1})
    peer.answers("GetExecution", GetExecutionResponse(execution=execution))

    lines = run("executions", "42").stdout.splitlines()

    assert lines[0] == "execution 42 failed at step fetch after 2.5 s: ValueError: no"
    assert ["workload", '{"n":', "1}"] in [line.split() for line in lines]
    assert [line.split() for line in lines[-2:]] == [
        ["start", "-", "router", "-", "-"],
        ["fetch", "7", "dead", "3/3", "-"],
    ]


def test_cancel_passes_the_reason_on(peer: Peer, run: Reprise) -> None:
    peer.answers("CancelExecution", CancelExecutionResponse())

    result = run("cancel", "42", "--reason", "wrong data")

    assert result.exit_code == 0
    assert (peer.asked[0].execution_id, peer.asked[0].reason) == (42, "wrong data")
