"""Fail carries facts and brings back the decision: nothing in a failure is a reason to refuse it, nothing said twice is decided twice."""

from datetime import UTC, timedelta
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2

from tests.contract.client import AT_ONCE, DEAD, OK, RETRY, Client, new_job, retry, seconds
from tests.contract.tables import EventRow, Tables
from tests.fixtures_database import MoveClock


def retry_info(after: float) -> bytes:
    """A serialized google.rpc.Status with a RetryInfo among its details."""
    info = error_details_pb2.RetryInfo(retry_delay=seconds(after))
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason="BUSY"))
    details[1].Pack(info)
    serialized: bytes = status_pb2.Status(code=8, details=details).SerializeToString()
    return serialized


async def failed(client: Client, tables: Tables, **failure: Any) -> EventRow:
    """The action_error of a new job's first attempt that fails like this."""
    job_id = await client.enqueue(retry=retry())
    answer = await client.fail((await client.lease()).lease_token, **{"message": "", **failure})
    assert answer.outcome == OK
    (error,) = await tables.events(job_id, "action_error")
    return error


async def test_the_event_of_a_failure_holds_its_facts_and_the_policy_in_force(
    client: Client, tables: Tables
) -> None:
    error = await failed(
        client,
        tables,
        message="no route",
        type="http.503",
        status_code=503,
        result_json='{"data": 1}',
        stack_trace="at main",
        retry_after=seconds(1.5),
    )

    elapsed = error.result.pop("elapsed")
    assert 0 <= elapsed < 10
    assert error.result == {
        "attempt": 1,
        "error": "no route",
        "error_type": "http.503",
        "status_code": 503,
        "result": {"data": 1},
        "stack_trace": "at main",
        "retry_after_seconds": 1.5,
        "policy": {
            "max_attempts": 3, "initial_delay": 1.0, "backoff_multiplier": 1.5, "max_delay": 60.0, "jitter": "none",
        },
    }  # fmt: skip


async def test_text_is_cleaned_of_nul(client: Client, tables: Tables) -> None:
    error = await failed(client, tables, message="a\0b", type="T\0", stack_trace="\0")

    assert (error.result["error"], error.result["error_type"], error.result["stack_trace"]) == (
        "a\ufffdb", "T\ufffd", "\ufffd",
    )  # fmt: skip


async def test_text_is_cut_to_its_bounds(client: Client, tables: Tables) -> None:
    error = await failed(client, tables, message="ä" * 100_000, type="T" * 1000, stack_trace="s" * 1_000_000)

    assert error.result["error"] == "ä" * 4096
    assert error.result["error_type"] == "T" * 128
    assert error.result["stack_trace"] == "s" * 32 * 1024


async def test_an_empty_message_becomes_the_type(client: Client, tables: Tables) -> None:
    error = await failed(client, tables, type="ValueError")

    assert error.result["error"] == "ValueError"


async def test_a_failure_that_says_nothing_is_one(client: Client, tables: Tables) -> None:
    error = await failed(client, tables)

    assert (error.result["error"], error.result["error_type"], error.result["status_code"]) == ("", "", None)


async def test_an_attempt_without_any_failure_message_is_one_too(client: Client) -> None:
    await client.enqueue()
    token = (await client.lease()).lease_token

    response = await client.stub.Fail(pb.FailRequest(attempts=[pb.FailedAttempt(lease_token=token)]))

    assert response.results[0].outcome == OK


@pytest.mark.parametrize(
    "result_json",
    ["{", "NaN", '"\\u0000"', '"\\ud800"', '{"a":1,"a":1}', "1e999999", "[" * 1000 + "]" * 1000, '"' + "x" * 1024 * 1024 + '"'],
    ids=lambda text: text[:12],
)  # fmt: skip
async def test_a_bad_result_is_left_out_and_the_event_says_so(
    client: Client, tables: Tables, result_json: str
) -> None:
    error = await failed(client, tables, message="boom", result_json=result_json)

    assert error.result["result"] is None
    assert error.result["result_left_out"]
    assert error.result["error"] == "boom"


async def test_what_a_downstream_says_about_coming_again_raises_the_delay(client: Client) -> None:
    for failure in ({"retry_after": seconds(30)}, {"status": retry_info(30)}):
        await client.enqueue(retry=retry(max_delay=10))
        decision = (await client.fail((await client.lease()).lease_token, **failure)).decision

        assert decision.delay_source == job_pb2.Decision.DELAY_SOURCE_RETRY_AFTER
        assert timedelta(seconds=30) <= decision.delay.ToTimedelta() <= timedelta(seconds=33)


@pytest.mark.parametrize(
    "failure",
    [
        {"status": b"no status at all \xff\xff"},
        {"retry_after": Duration(seconds=-5)},
        {"retry_after": Duration(seconds=2**62)},
        {"retry_after": Duration(seconds=1, nanos=-1)},
        {"retry_after": seconds(0.5)},
    ],
)
async def test_a_hint_that_is_no_use_changes_nothing(client: Client, failure: dict[str, Any]) -> None:
    await client.enqueue(retry=retry())

    decision = (await client.fail((await client.lease()).lease_token, **failure)).decision

    assert (decision.delay.ToTimedelta(), decision.delay_source) == (
        timedelta(seconds=1),
        job_pb2.Decision.DELAY_SOURCE_BACKOFF,
    )


async def test_a_decision_to_retry_says_everything(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=5, retry_when="{{ true }}"))

    decision = (await client.fail((await client.lease()).lease_token)).decision

    assert (decision.verdict, decision.reason) == (RETRY, job_pb2.Decision.REASON_RETRY_WHEN)
    assert (decision.attempt, decision.max_attempts) == (1, 5)
    assert (await tables.job(job_id)).available_at == decision.available_at.ToDatetime(UTC)
    (event,) = await tables.events(job_id, "action_retry")
    assert {name: event.result[name] for name in ("attempt", "max_attempts", "retry_delay_seconds", "reason")} == {
        "attempt": 1, "max_attempts": 5, "retry_delay_seconds": 1.0, "reason": "retry_when",
    }  # fmt: skip
    assert event.result["available_at"]
    assert "retried in" in event.result["message"]


async def test_a_decision_that_ends_a_job_says_everything(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=1))

    decision = (await client.fail((await client.lease()).lease_token)).decision

    assert (decision.verdict, decision.reason) == (DEAD, job_pb2.Decision.REASON_ATTEMPTS_EXHAUSTED)
    assert not decision.HasField("delay")
    assert not decision.HasField("available_at")
    assert decision.delay_source == job_pb2.Decision.DELAY_SOURCE_UNSPECIFIED
    (event,) = await tables.events(job_id, "job_dead")
    assert (event.result["attempt"], event.result["max_attempts"], event.result["reason"]) == (
        1, 1, "attempts_exhausted",
    )  # fmt: skip


async def test_a_retry_without_delay_is_available_at_once(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(retry=AT_ONCE)

    decision = (await client.fail((await client.lease()).lease_token)).decision

    assert decision.delay.ToTimedelta() == timedelta(0)
    assert await tables.standing(job_id) == "retry 1/3"
    assert [lease.attempt for lease in await client.poll()] == [2]


async def test_a_repeated_fail_gets_the_first_decision_whatever_it_says_now(client: Client) -> None:
    await client.enqueue(retry=retry(stop_when="{{ status_code == 400 }}"))
    token = (await client.lease()).lease_token
    first = await client.fail(token, status_code=500, trace=True)

    second = await client.fail(token, status_code=400, trace=True)

    assert second == first


async def test_a_repeated_fail_gets_the_first_decision_also_when_the_job_has_moved_on(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=2))
    token = (await client.lease()).lease_token
    first = await client.fail(token)
    await move_clock(1)
    last = (await client.lease()).lease_token
    dead = await client.fail(last)

    assert await client.fail(token) == first
    assert await client.fail(last) == dead
    assert len(await tables.events(job_id, "action_error")) == 2


async def test_a_trace_comes_on_request_only(client: Client) -> None:
    await client.enqueue_all(*(new_job(retry=retry(stop_when="{{ attempt > 5 }}")) for _ in range(2)))
    first, second = await client.poll(2)

    silent = await client.fail(first.lease_token)
    told = await client.fail(second.lease_token, trace=True)

    assert not silent.decision.trace
    assert [(step.check, step.text, step.value) for step in told.decision.trace] == [
        ("stop_when", "{{ attempt > 5 }}", "false"),
        ("attempts", "attempt < max_attempts", "1 < 3"),
        ("delay", "min(1 s * 1.5^0, 60 s)", "1 s"),
    ]


async def test_a_condition_that_raises_leaves_the_default_rule_and_is_recorded(
    client: Client, tables: Tables
) -> None:
    job_id = await client.enqueue(retry=retry(retry_when="{{ status_code > 400 }}"))

    answer = await client.fail((await client.lease()).lease_token, trace=True)

    assert (answer.decision.verdict, answer.decision.reason) == (
        RETRY,
        job_pb2.Decision.REASON_CONDITION_ERROR,
    )
    (event,) = await tables.events(job_id, "action_retry")
    check, text, value = event.result["trace"][0]
    assert (check, text) == ("retry_when", "{{ status_code > 400 }}")
    assert value.startswith("error: ")


async def test_conditions_see_the_result_of_the_attempt(client: Client) -> None:
    policy = retry(
        retry_when="{{ data.code == 'BUSY' and status_code == 503 and not success and result.data }}"
    )
    await client.enqueue(retry=policy)

    answer = await client.fail(
        (await client.lease()).lease_token, result_json='{"data": {"code": "BUSY", "status_code": 503}}'
    )

    assert answer.decision.verdict == RETRY


async def test_jitter_spreads_a_delay_and_never_passes_its_bound(client: Client) -> None:
    await client.enqueue_all(*(new_job(retry=retry(initial_delay=10, jitter=2)) for _ in range(30)))
    tokens = [lease.lease_token for lease in await client.poll(30)]

    response = await client.stub.Fail(
        pb.FailRequest(attempts=[pb.FailedAttempt(lease_token=token) for token in tokens])
    )

    delays = [result.decision.delay.ToTimedelta().total_seconds() for result in response.results]
    assert len(set(delays)) > 20
    assert all(0 <= delay <= 10 for delay in delays)


async def test_of_attempts_that_fail_alike_each_event_has_its_own_time(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_ids = []
    for _ in range(2):
        job_ids.append(await client.enqueue(retry=retry(retry_when="{{ status_code == 503 }}")))
        await move_clock(100)
    leases = [await client.lease() for _ in range(2)]

    for lease in leases:
        await client.fail(lease.lease_token, message="busy", status_code=503)

    errors = [error for job_id in job_ids for error in await tables.events(job_id, "action_error")]
    assert [round(error.result["elapsed"], -2) for error in errors] == [200, 100]


async def test_of_attempts_that_fail_alike_each_is_decided_by_its_own_time_where_a_condition_asks_for_it(
    client: Client, move_clock: MoveClock
) -> None:
    verdicts = []
    for _ in range(2):
        await client.enqueue(retry=retry(retry_when="{{ elapsed < 60 }}"))
    for _ in range(2):
        lease = await client.lease()
        verdicts.append((await client.fail(lease.lease_token, message="busy")).decision.verdict)
        await move_clock(100)

    assert verdicts == [RETRY, DEAD]


@pytest.mark.parametrize("message", ["busy", "büsy", "x" * 4000])
async def test_attempts_that_fail_alike_are_decided_alike_where_policies_do_not_differ(
    client: Client, message: str
) -> None:
    verdicts = []
    for stop_when in ("{{ 'y' in error }}", "{{ 'z' in error }}", "{{ 'y' in error }}"):
        await client.enqueue(retry=retry(stop_when=stop_when, initial_delay=60, max_delay=60))
        lease = await client.lease()
        verdicts.append((await client.fail(lease.lease_token, message=message)).decision.verdict)

    asked = DEAD if "y" in message else RETRY
    assert verdicts == [asked, RETRY, asked]
