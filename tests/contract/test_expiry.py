"""A lease whose worker is silent goes through the same decision as a failure; no attempt outlives its timeout."""

from datetime import UTC, timedelta

from tests.contract.client import OK, Client, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock


async def stands(tables: Tables, job_id: int, standing: str) -> None:
    """Returns once the job stands like this."""

    async def so() -> bool:
        return await tables.standing(job_id) == standing

    await eventually(so)


async def test_an_expired_lease_costs_its_attempt_and_waits_like_a_failure(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(initial_delay=100, max_delay=100))
    await client.lease(lease_seconds=30)

    await move_clock(30)

    await stands(tables, job_id, "retry 1/3")
    error, retried = await tables.events(job_id, "action_error", "action_retry")
    assert (error.result["error_type"], error.result["status_code"], error.result["result"]) == (
        "lease_expired", None, None,
    )  # fmt: skip
    assert error.result["policy"]["initial_delay"] == 100
    assert (retried.result["reason"], retried.result["retry_delay_seconds"]) == ("worker_lost", 100.0)


async def test_a_lease_does_not_expire_before_its_time(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue()
    token = (await client.lease(lease_seconds=30)).lease_token

    await move_clock(25)

    assert (await client.extend(token)).outcome == OK
    assert await tables.standing(job_id) == "leased 1/1"


async def test_a_lease_expires_by_itself_within_moments_of_its_time(client: Client, tables: Tables) -> None:
    job_id = await client.enqueue()
    lease = await client.lease(lease_seconds=1)

    await stands(tables, job_id, "dead 1/1")

    (error,) = await tables.events(job_id, "action_error")
    late = error.created_at - lease.lease_expires_at.ToDatetime(UTC)
    assert timedelta(milliseconds=-1) <= late < timedelta(seconds=1)


async def test_a_job_that_kills_its_workers_ends_dead(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(max_attempts=3, initial_delay=1))

    for attempt, delay in ((1, 1.0), (2, 1.5)):
        await client.lease(lease_seconds=30)
        await move_clock(30)
        await stands(tables, job_id, f"retry {attempt}/3")
        await move_clock(delay)
    await client.lease(lease_seconds=30)
    await move_clock(30)

    await stands(tables, job_id, "dead 3/3")
    assert len(await tables.events(job_id, "action_started")) == 3
    assert len(await tables.events(job_id, "action_error")) == 3
    assert len(await tables.events(job_id, "action_retry")) == 2
    (dead,) = await tables.events(job_id, "job_dead")
    assert dead.result["reason"] == "attempts_exhausted"


async def test_a_narrow_retry_when_is_not_asked_about_a_lost_worker(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(retry_when="{{ status_code == 503 }}", initial_delay=60))
    await client.lease(lease_seconds=30)

    await move_clock(30)

    await stands(tables, job_id, "retry 1/3")


async def test_stop_when_is_asked_about_a_lost_worker(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(retry=retry(stop_when="{{ error_type == 'lease_expired' }}"))
    await client.lease(lease_seconds=30)

    await move_clock(30)

    await stands(tables, job_id, "dead 1/3")
    (dead,) = await tables.events(job_id, "job_dead")
    assert dead.result["reason"] == "stop_when"


async def test_an_attempt_that_takes_longer_than_it_may_is_a_timeout(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(attempt_timeout=10, retry=retry(initial_delay=60))
    lease = await client.lease(lease_seconds=30)
    assert timedelta(seconds=9) < lease.lease_duration.ToTimedelta() <= timedelta(seconds=10)

    await move_clock(10)

    await stands(tables, job_id, "retry 1/3")
    (error,) = await tables.events(job_id, "action_error")
    assert error.result["error_type"] == "timeout"


async def test_retry_when_is_asked_about_a_timeout(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(attempt_timeout=10, retry=retry(retry_when="{{ error_type != 'timeout' }}"))
    await client.lease()

    await move_clock(10)

    await stands(tables, job_id, "dead 1/3")


async def test_a_lease_that_expires_before_the_timeout_is_a_lost_worker(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    job_id = await client.enqueue(attempt_timeout=100)
    await client.lease(lease_seconds=30)

    await move_clock(30)

    await stands(tables, job_id, "dead 1/1")
    (error,) = await tables.events(job_id, "action_error")
    assert error.result["error_type"] == "lease_expired"


async def test_the_timeout_counts_each_attempt_anew(client: Client, move_clock: MoveClock) -> None:
    await client.enqueue(attempt_timeout=10, retry=retry(initial_delay=60, max_delay=60))
    first = await client.lease(lease_seconds=30)
    await client.fail(first.lease_token)
    await move_clock(60)

    second = await client.lease(lease_seconds=30)

    assert timedelta(seconds=9) < second.lease_duration.ToTimedelta() <= timedelta(seconds=10)
