"""Attempts are counted on lease alone, and a policy's waits are kept to the fraction of a second: the seed's lines."""

from datetime import UTC, timedelta

import pytest

from tests.contract.client import DEAD, OK, RETRY, Client, retry
from tests.contract.tables import JobRow, Tables
from tests.fixtures_database import MoveClock


async def fail_until_dead(client: Client, move_clock: MoveClock) -> list[timedelta]:
    """Fails every attempt of the one job there is; the waits that the broker decided on."""
    waits: list[timedelta] = []
    while True:
        decision = (await client.fail((await client.lease()).lease_token, "Test retry")).decision
        if decision.verdict == DEAD:
            return waits
        waits.append(decision.delay.ToTimedelta())
        await move_clock(decision.delay.ToTimedelta().total_seconds())


async def test_three_attempts_that_fail_are_three_executions_two_retries_and_death_at_three_of_three(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(
        retry=retry(max_attempts=3, initial_delay=1, retry_when="{{ error != None }}")
    )

    waits = await fail_until_dead(client, move_clock)

    assert [wait.total_seconds() for wait in waits] == [1.0, 1.5]
    assert await tables.standing(job_id) == "dead 3/3"
    assert await tables.story(job_id) == [
        "job_enqueued",
        "action_started", "action_error", "action_retry",
        "action_started", "action_error", "action_retry",
        "action_started", "action_error", "job_dead",
    ]  # fmt: skip


async def test_an_empty_policy_waits_one_second_and_then_one_and_a_half(
    client: Client, move_clock: MoveClock
) -> None:
    await client.enqueue(retry=retry())

    waits = await fail_until_dead(client, move_clock)

    assert [wait.total_seconds() for wait in waits] == [1.0, 1.5]


async def test_five_attempts_from_two_seconds_wait_2_and_3_and_4_5_and_6_75_seconds(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=5, initial_delay=2, backoff_multiplier=1.5))

    waits = await fail_until_dead(client, move_clock)

    assert [wait.total_seconds() for wait in waits] == [2.0, 3.0, 4.5, 6.75]
    assert await tables.standing(job_id) == "dead 5/5"
    retries = await tables.events(job_id, "action_retry")
    assert [
        (event.result["attempt"], event.result["max_attempts"], event.result["retry_delay_seconds"])
        for event in retries
    ] == [(1, 5, 2.0), (2, 5, 3.0), (3, 5, 4.5), (4, 5, 6.75)]


async def test_the_six_moments_of_a_job_that_always_fails(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=3, initial_delay=1))

    first = await client.lease()
    assert await tables.job(job_id) == JobRow("leased", 1, 3, None)
    first_decision = (await client.fail(first.lease_token)).decision
    assert await tables.job(job_id) == JobRow("retry", 1, 3, first_decision.available_at.ToDatetime(UTC))
    await move_clock(1)
    second = await client.lease()
    assert await tables.job(job_id) == JobRow("leased", 2, 3, None)
    second_decision = (await client.fail(second.lease_token)).decision
    assert await tables.job(job_id) == JobRow("retry", 2, 3, second_decision.available_at.ToDatetime(UTC))
    await move_clock(1.5)
    third = await client.lease()
    assert await tables.job(job_id) == JobRow("leased", 3, 3, None)
    third_decision = (await client.fail(third.lease_token)).decision
    assert await tables.job(job_id) == JobRow("dead", 3, 3, None)
    assert [decision.verdict for decision in (first_decision, second_decision, third_decision)] == [
        RETRY,
        RETRY,
        DEAD,
    ]


async def test_available_at_lies_the_whole_delay_after_the_failure(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue(retry=retry(initial_delay=0.0625, max_attempts=2))

    decision = (await client.fail((await client.lease()).lease_token)).decision

    assert decision.delay.ToTimedelta() == timedelta(seconds=0.0625)
    (event,) = await tables.events(job_id, "action_retry")
    waited = decision.available_at.ToDatetime(UTC) - event.created_at
    assert abs(waited - timedelta(seconds=0.0625)) < timedelta(milliseconds=1)


async def test_a_retry_is_not_leased_before_its_time(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(initial_delay=60))
    await client.fail((await client.lease()).lease_token)

    await move_clock(30)

    assert await client.poll() == []
    assert await tables.standing(job_id) == "retry 1/3"


async def test_a_retry_starts_by_itself_within_moments_of_its_time(client: Client) -> None:
    await client.enqueue(retry=retry(initial_delay=0.2))
    decision = (await client.fail((await client.lease()).lease_token)).decision

    lease = await client.lease(lease_seconds=30)

    started_at = lease.lease_expires_at.ToDatetime() - timedelta(seconds=30)
    assert timedelta(0) <= started_at - decision.available_at.ToDatetime() < timedelta(seconds=0.5)


async def test_a_job_without_a_policy_has_one_attempt(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()

    failed = await client.fail((await client.lease()).lease_token)

    assert failed.decision.verdict == DEAD
    assert failed.decision.reason == failed.decision.REASON_NO_POLICY
    assert await tables.standing(job_id) == "dead 1/1"


async def test_a_job_that_fails_twice_and_then_succeeds_is_done_in_its_third_attempt(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry())
    for delay in (1.0, 1.5):
        await client.fail((await client.lease()).lease_token)
        await move_clock(delay)

    outcome = await client.complete((await client.lease()).lease_token, result_json='{"answer": 42}')

    assert outcome == OK
    assert await tables.standing(job_id) == "done 3/3"
    assert [event.result for event in await tables.events(job_id, "action_completed")] == [{"answer": 42}]


async def test_a_plain_success_is_three_events(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()

    await client.complete((await client.lease()).lease_token)

    assert await tables.story(job_id) == ["job_enqueued", "action_started", "action_completed"]


async def test_the_events_of_an_attempt_say_which_one_just_ran(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=2, initial_delay=1))
    await client.fail((await client.lease(worker_id="one")).lease_token)
    await move_clock(1)
    await client.fail((await client.lease(worker_id="two")).lease_token)

    started = await tables.events(job_id, "action_started")

    assert [event.result for event in started] == [
        {"attempt": 1, "max_attempts": 2, "is_retry": False, "worker_id": "one"},
        {"attempt": 2, "max_attempts": 2, "is_retry": True, "worker_id": "two"},
    ]
    ended = await tables.events(job_id, "action_error", "action_retry", "job_dead")
    assert [(event.event_type, event.result["attempt"]) for event in ended] == [
        ("action_error", 1), ("action_retry", 1), ("action_error", 2), ("job_dead", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "standing"),
    [
        ({"retry_when": "{{ attempt < 2 }}"}, "dead 2/9"),
        ({"stop_when": "{{ attempt == 3 }}"}, "dead 3/9"),
        ({"retry_when": "{{ status_code in [429, 503] }}"}, "dead 1/9"),
        ({"stop_when": "{{ 'boom' in (error | lower) }}"}, "dead 1/9"),
        ({"retry_when": "{{ true }}", "stop_when": "{{ max_attempts == 9 }}"}, "dead 1/9"),
        ({"retry_when": "{{ queue == 'default' and kind == 'task' and attempt < 4 }}"}, "dead 4/9"),
    ],
)
async def test_conditions_see_the_attempt_that_just_ran(
    client: Client, tables: Tables, condition: dict[str, str], standing: str
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=9, initial_delay=0, **condition))

    while leases := await client.poll():
        await client.fail(leases[0].lease_token, "BOOM", status_code=500)

    assert await tables.standing(job_id) == standing
