"""enqueue, queue, jobs, job, events, queues: what is asked of the broker, and what people see."""

import json

from google.protobuf.duration_pb2 import Duration
from reprise.v1.broker_service_pb2 import EnqueuedJob, EnqueueResponse
from reprise.v1.job_pb2 import (
    JOB_STATUS_DEAD,
    JOB_STATUS_RETRY,
    JOB_VIEW_FULL,
    Decision,
    Event,
    Failure,
    Job,
    TraceStep,
)
from reprise.v1.queue_service_pb2 import (
    GetJobResponse,
    ListEventsResponse,
    ListJobsResponse,
    ListQueuesResponse,
    Queue,
)
from reprise.v1.retry_pb2 import JITTER_NONE, RetryPolicy

from tests.unit.cli.peer import Peer, Reprise, at

WAITING = Job(
    job_id=7,
    execution_id=42,
    step="fail_task",
    queue="default",
    kind="python",
    status=JOB_STATUS_RETRY,
    attempts=1,
    max_attempts=3,
    created_at=at(0),
    available_at=at(1),
    worker_id="w1",
    last_failure=Failure(type="ValueError", message="no\tsuch\nthing"),
)


def test_enqueue_sends_what_was_written(peer: Peer, run: Reprise) -> None:
    peer.answers("Enqueue", EnqueueResponse(jobs=[EnqueuedJob(job_id=7, created=True)]))

    result = run(
        *("enqueue", "--kind", "send", "--queue", "mail", "--input", '{"to": 12345678901234567890}'),
        *(
            "--delay",
            "5s",
            "--priority",
            "9",
            "--retry",
            '{"max_attempts": 4}',
            "--label",
            "team=a",
            "--key",
            "k",
        ),
        *("--attempt-timeout", "2m", "--dependency", "smtp"),
    )

    assert (result.exit_code, result.stdout) == (0, "7\n")
    [job] = peer.asked[0].jobs
    assert (job.kind, job.queue, job.priority, job.idempotency_key) == ("send", "mail", 9, "k")
    assert job.input_json == '{"to": 12345678901234567890}'
    assert job.delay == Duration(seconds=5)
    assert job.attempt_timeout == Duration(seconds=120)
    assert job.retry == RetryPolicy(max_attempts=4)
    assert (dict(job.labels), job.dependency) == ({"team": "a"}, "smtp")


def test_plain_enqueue_leaves_every_choice_to_the_broker_but_has_a_key(peer: Peer, run: Reprise) -> None:
    peer.answers("Enqueue", EnqueueResponse(jobs=[EnqueuedJob(job_id=7, created=True)]))

    run("enqueue", "--kind", "send")
    run("enqueue", "--kind", "send")

    first, second = (request.jobs[0] for request in peer.asked)
    assert first.WhichOneof("policy") is None
    assert first.WhichOneof("start") is None
    assert not first.HasField("attempt_timeout")
    assert first.idempotency_key
    assert first.idempotency_key != second.idempotency_key


def test_enqueue_reads_standard_input(peer: Peer, run: Reprise) -> None:
    peer.answers("Enqueue", EnqueueResponse(jobs=[EnqueuedJob(job_id=7, created=False)]))

    result = run("enqueue", "--kind", "send", "--input", "-", stdin='{"a": 1}')

    assert peer.asked[0].jobs[0].input_json == '{"a": 1}'
    assert (result.stdout, result.stderr) == ("7\n", "it was there already\n")


def test_queue_shows_the_rows_of_the_queue(peer: Peer, run: Reprise) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[WAITING, Job(job_id=6, queue="default", kind="http")]))

    result = run("queue", "--execution", "42", "--status", "retry", "--status", "dead")

    heading, row, bare = result.stdout.splitlines()
    assert heading.split()[0] == "queue_id"
    assert row.split() == [
        "7",
        "42",
        "fail_task",
        "default",
        "python",
        "retry",
        "1/3",
        "2027-01-15T08:00:01.000Z",
    ]
    assert len(bare.split()) == len(heading.split()), "an empty cell keeps its place"
    assert "\t" not in result.stdout
    assert peer.asked[0].filter.execution_id == 42
    assert list(peer.asked[0].filter.statuses) == [JOB_STATUS_RETRY, JOB_STATUS_DEAD]


def test_queue_as_json_has_the_names_of_the_queue_view(peer: Peer, run: Reprise) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[WAITING]))

    assert json.loads(run("queue", "--json").stdout) == [
        {
            "queue_id": "7",
            "execution_id": "42",
            "node_name": "fail_task",
            "queue": "default",
            "kind": "python",
            "status": "retry",
            "priority": 0,
            "attempts": 1,
            "max_attempts": 3,
            "available_at": "2027-01-15T08:00:01Z",
            "lease_until": None,
            "created_at": "2027-01-15T08:00:00Z",
            "finished_at": None,
        }
    ]


def test_jobs_goes_on_over_pages_up_to_the_limit(peer: Peer, run: Reprise) -> None:
    peer.answers(
        "ListJobs",
        ListJobsResponse(jobs=[WAITING, WAITING], next_page_token="a"),
        ListJobsResponse(next_page_token="b"),
        ListJobsResponse(jobs=[WAITING], next_page_token="c"),
    )

    result = run("jobs", "--limit", "3", "--json")

    assert len(json.loads(result.stdout)) == 3
    assert [(asked.page_size, asked.page_token) for asked in peer.asked] == [(3, ""), (1, "a"), (1, "b")]
    assert "there are more" in result.stderr


def test_jobs_without_limit_reads_every_page(peer: Peer, run: Reprise) -> None:
    peer.answers(
        "ListJobs", ListJobsResponse(jobs=[WAITING], next_page_token="a"), ListJobsResponse(jobs=[WAITING])
    )

    result = run("jobs", "--limit", "0", "--queue", "default", "--kind", "python", "--label", "team=a")

    assert len(result.stdout.splitlines()) == 3
    assert result.stderr == ""
    assert peer.asked[0].filter.kind == "python"
    assert dict(peer.asked[0].filter.labels) == {"team": "a"}


def test_jobs_shows_the_last_failure_on_the_job_s_line(peer: Peer, run: Reprise) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[WAITING]))

    assert run("jobs").stdout.splitlines()[1].endswith("ValueError: no such thing")


def test_json_has_every_field_under_its_name_in_the_contract(peer: Peer, run: Reprise) -> None:
    peer.answers("ListJobs", ListJobsResponse(jobs=[Job(job_id=2**60)]))

    [job] = json.loads(run("jobs", "--json").stdout)

    assert job["job_id"] == str(2**60), "JSON readers round greater integers than 2^53"
    assert job["attempts"] == 0
    assert job["status"] == "JOB_STATUS_UNSPECIFIED"


def test_job_shows_one_in_full(peer: Peer, run: Reprise) -> None:
    full = Job()
    full.CopyFrom(WAITING)
    full.input_json = '{"a":{"b":1}}'
    full.retry.CopyFrom(
        RetryPolicy(
            max_attempts=3,
            initial_delay=Duration(seconds=1),
            backoff_multiplier=1.5,
            max_delay=Duration(seconds=60),
            jitter=JITTER_NONE,
        )
    )
    full.last_failure.stack_trace = "Traceback:\n  line 1\x1b[31m"
    full.last_decision.CopyFrom(
        Decision(
            verdict=Decision.VERDICT_RETRY,
            reason=Decision.REASON_ANY_FAILURE,
            delay=Duration(seconds=1),
            trace=[
                TraceStep(check="stop_when", text="{{ status_code == 400 }}", value="false"),
                TraceStep(check="delay", text="min(1 s * 1.5^0, 60 s)", value="1 s"),
            ],
        )
    )
    peer.answers("GetJob", GetJobResponse(job=full))

    lines = run("job", "7").stdout.splitlines()

    assert peer.asked[0].view == JOB_VIEW_FULL
    fields = dict(line.split(None, 1) for line in lines if not line.startswith(" ") and len(line.split()) > 1)
    assert fields["status"] == "retry"
    assert fields["attempts"] == "1/3"
    assert fields["retry"] == "3 attempts, first after 1 s, then times 1.5, at most 1 min, jitter none"
    assert fields["last_decision"] == "retry in 1 s: the policy retries any failure"
    assert lines[lines.index("checks of the last decision") + 1 : lines.index("input")] == [
        "  stop_when  {{ status_code == 400 }} -> false",
        "  delay      min(1 s * 1.5^0, 60 s) -> 1 s",
    ]
    assert lines[lines.index("input") + 1 : lines.index("output and stack trace of the last failure")] == [
        "  {",
        '    "a": {',
        '      "b": 1',
        "    }",
        "  }",
    ]
    assert lines[-2:] == ["  Traceback:", "    line 1 [31m"]


def test_events_of_an_execution_or_of_a_job(peer: Peer, run: Reprise) -> None:
    retried = Event(
        event_id=1,
        event_type="action_retry",
        step="fail_task",
        attempt=1,
        created_at=at(0),
        result_json='{"max_attempts": 3, "retry_delay_seconds": 1.5, "reason": "retry_when"}',
    )
    peer.answers("ListEvents", ListEventsResponse(events=[retried]))

    row = run("events", "42").stdout.splitlines()[1]
    document = json.loads(run("events", "--job", "7", "--type", "action_retry", "--json").stdout)

    assert row.split(None, 4)[1:] == [
        "action_retry",
        "fail_task",
        "1/3",
        "retry in 1.5 s: retry_when is true",
    ]
    assert document[0]["event_type"] == "action_retry"
    assert (peer.asked[0].execution_id, peer.asked[0].job_id) == (42, 0)
    assert (peer.asked[1].execution_id, peer.asked[1].job_id, list(peer.asked[1].event_types)) == (
        0,
        7,
        ["action_retry"],
    )


def test_queues_shows_the_backlog(peer: Peer, run: Reprise) -> None:
    backlog = Queue(
        name="mail", queued=3, retry=2, dead=1, oldest_due_age=Duration(seconds=90), workers=4, paused=True
    )
    peer.answers("ListQueues", ListQueuesResponse(queues=[backlog]))

    row = run("queues").stdout.splitlines()[1]

    assert row.split() == ["mail", "3", "0", "0", "2", "1", "4", "1", "min", "30", "s", "paused"]


def test_queues_says_that_workers_are_those_of_the_broker_that_answers(run: Reprise) -> None:
    explained = " ".join(run("queues", "--help").stdout.split())

    assert (
        "of the whole database but `workers`: those are the streams of the broker process that answers"
        in explained
    )


def test_queues_shows_what_is_seldom_there_only_where_it_is(peer: Peer, run: Reprise) -> None:
    peer.answers(
        "ListQueues",
        ListQueuesResponse(queues=[Queue(name="mail")]),
        ListQueuesResponse(queues=[Queue(name="mail"), Queue(name="slow", held=1)]),
    )

    plain, with_held = (run("queues").stdout.splitlines()[0].split() for _ in range(2))

    assert plain == ["queue", "queued", "scheduled", "leased", "retry", "dead", "workers", "oldest_due_age"]
    assert "held" in with_held


def test_queues_marks_counts_that_may_be_estimates(peer: Peer, run: Reprise) -> None:
    backlog = Queue(name="mail", queued=1_000_000, workers=4, estimated=True)
    peer.answers("ListQueues", ListQueuesResponse(queues=[backlog]))

    row = run("queues").stdout.splitlines()[1]

    assert row.split()[:8] == ["mail", "~1000000", "0", "0", "0", "0", "4", "-"]
