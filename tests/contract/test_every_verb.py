"""Every status x every verb x every kind of token: what is answered, and what it leaves behind."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
from reprise.v1 import broker_service_pb2 as pb

from broker.lifecycle.tokens import TokenCodec
from tests.contract.client import LOST, OK, Client, retry
from tests.contract.tables import Tables
from tests.contract.waiting import eventually
from tests.fixtures_database import MoveClock


class World(NamedTuple):
    """What a scene is made with."""

    client: Client
    tables: Tables
    move_clock: MoveClock
    job_id: int

    async def lease(self) -> str:
        """The token of the next attempt; short, so that moving the clock by 30 s ends it."""
        return (await self.client.lease(lease_seconds=20)).lease_token

    async def retried(self) -> str:
        """The token of the attempt after the one that just failed."""
        await self.move_clock(60)
        return await self.lease()


# Each scene brings a job into a status and gives a token: of the lease that is, of one that was, or of one that never was.


async def _current(world: World) -> str:
    return await world.lease()


async def _current_of_a_later_attempt(world: World) -> str:
    await world.client.fail(await world.lease())
    return await world.retried()


async def _completed(world: World) -> str:
    token = await world.lease()
    await world.client.complete(token, result_json="1")
    return token


async def _failed(world: World) -> str:
    token = await world.lease()
    await world.client.fail(token, "first")
    return token


async def _failed_and_leased_again(world: World) -> str:
    token = await _failed(world)
    await world.retried()
    return token


async def _failed_and_done_since(world: World) -> str:
    token = await _failed(world)
    await world.client.complete(await world.retried())
    return token


async def _failed_and_dead_since(world: World) -> str:
    token = await _failed(world)
    await world.client.fail(await world.retried())
    await world.client.fail(await world.retried())
    return token


async def _failed_for_good(world: World) -> str:
    await world.client.fail(await world.lease())
    await world.client.fail(await world.retried())
    token = await world.retried()
    await world.client.fail(token, "last")
    return token


async def _released(world: World) -> str:
    token = await world.lease()
    await world.client.release(token)
    return token


async def _released_and_leased_again(world: World) -> str:
    token = await _released(world)
    await world.lease()
    return token


async def _expired(world: World) -> str:
    token = await world.lease()
    await world.move_clock(20)
    await eventually(lambda: _is(world, "retry"))
    return token


async def _expired_and_leased_again(world: World) -> str:
    token = await _expired(world)
    await world.retried()
    return token


async def _expired_for_good(world: World) -> str:
    await world.client.fail(await world.lease())
    await world.client.fail(await world.retried())
    token = await world.retried()
    await world.move_clock(20)
    await eventually(lambda: _is(world, "dead"))
    return token


async def _given_back(world: World) -> str:
    async with world.client.stream(1) as stream:
        (lease,) = await stream.leases(1)
    await eventually(lambda: _is(world, "queued"))
    return lease.lease_token


async def _never_granted(world: World) -> str:
    await world.lease()
    key = await world.tables.value("SELECT token_key FROM noetl.installation")
    return TokenCodec(key).issue(12345, world.job_id, in_execution=False)


async def _of_another_database(world: World) -> str:
    await world.lease()
    return TokenCodec(b"another").issue(12345, world.job_id, in_execution=False)


async def _malformed(world: World) -> str:
    await world.lease()
    return "no\0token"


async def _empty(world: World) -> str:
    await world.lease()
    return ""


async def _is(world: World, status: str) -> bool:
    return (await world.tables.job(world.job_id)).status == status


Scene = Callable[[World], Awaitable[str]]


class Case(NamedTuple):
    """A scene, where it leaves the job, and which verb alone is answered with OK, as a repeat; None: no verb is."""

    scene: Scene
    standing: str
    repeats: str | None


SPENT = [
    Case(_completed, "done 1/3", "complete"),
    Case(_failed, "retry 1/3", "fail"),
    Case(_failed_and_leased_again, "leased 2/3", "fail"),
    Case(_failed_and_done_since, "done 2/3", "fail"),
    Case(_failed_and_dead_since, "dead 3/3", "fail"),
    Case(_failed_for_good, "dead 3/3", "fail"),
    Case(_released, "queued 0/3", "release"),
    Case(_released_and_leased_again, "leased 1/3", "release"),
    Case(_expired, "retry 1/3", None),
    Case(_expired_and_leased_again, "leased 2/3", None),
    Case(_expired_for_good, "dead 3/3", None),
    Case(_given_back, "queued 0/3", None),
    Case(_never_granted, "leased 1/3", None),
    Case(_of_another_database, "leased 1/3", None),
    Case(_malformed, "leased 1/3", None),
    Case(_empty, "leased 1/3", None),
]

CURRENT = [
    (_current, "extend", "leased 1/3", []),
    (_current, "complete", "done 1/3", ["action_completed"]),
    (_current, "fail", "retry 1/3", ["action_error", "action_retry"]),
    (_current, "release", "queued 0/3", ["lease_released"]),
    (_current_of_a_later_attempt, "extend", "leased 2/3", []),
    (_current_of_a_later_attempt, "complete", "done 2/3", ["action_completed"]),
    (_current_of_a_later_attempt, "fail", "retry 2/3", ["action_error", "action_retry"]),
    (_current_of_a_later_attempt, "release", "retry 1/3", ["lease_released"]),
]


async def use(client: Client, verb: str, token: str) -> pb.LeaseOutcome.ValueType:
    """The outcome of a verb, with arguments other than those of any scene."""
    match verb:
        case "extend":
            return (await client.extend(token, checkpoint_json='"late"')).outcome
        case "complete":
            return await client.complete(token, result_json='"late"')
        case "fail":
            return (await client.fail(token, "late")).outcome
    assert verb == "release"
    return await client.release(token)


@pytest.fixture
async def world(client: Client, tables: Tables, move_clock: MoveClock) -> World:
    """One job of three attempts, and everything to play with it."""
    return World(client, tables, move_clock, await client.enqueue(retry=retry(initial_delay=50)))


@pytest.mark.parametrize(("scene", "verb", "standing", "events"), CURRENT)
async def test_the_holder_of_a_lease_may_use_every_verb(
    world: World, scene: Scene, verb: str, standing: str, events: list[str]
) -> None:
    token = await scene(world)
    before = await world.tables.story(world.job_id)

    outcome = await use(world.client, verb, token)

    assert outcome == OK
    assert await world.tables.standing(world.job_id) == standing
    assert (await world.tables.story(world.job_id))[len(before) :] == events


@pytest.mark.parametrize("case", SPENT, ids=lambda case: case.scene.__name__.removeprefix("_"))
async def test_a_token_that_holds_nothing_changes_nothing_and_only_the_same_verb_again_is_ok(
    world: World, case: Case
) -> None:
    token = await case.scene(world)
    assert await world.tables.standing(world.job_id) == case.standing
    before = await _everything(world.tables)

    outcomes = {
        verb: await use(world.client, verb, token) for verb in ("extend", "complete", "fail", "release")
    }

    assert outcomes == {
        verb: OK if verb == case.repeats else LOST for verb in ("extend", "complete", "fail", "release")
    }
    assert await _everything(world.tables) == before


async def test_lease_takes_queued_jobs_and_due_retries_and_nothing_else(
    client: Client, tables: Tables, move_clock: MoveClock
) -> None:
    done = await client.enqueue(retry=retry())
    await client.complete((await client.lease()).lease_token)
    dead = await client.enqueue()
    await client.fail((await client.lease()).lease_token)
    waiting = await client.enqueue(retry=retry(initial_delay=3600, max_delay=3600))
    await client.fail((await client.lease()).lease_token)
    due = await client.enqueue(retry=retry(initial_delay=10))
    await client.fail((await client.lease()).lease_token)
    leased = await client.enqueue()
    await client.lease(lease_seconds=3600)
    scheduled = await client.enqueue(delay=3600)
    queued = await client.enqueue()
    await move_clock(10)
    await eventually(lambda: _has(tables, "SELECT count(*) FROM noetl.ready", 2))

    taken = await client.poll(100, queues=["default", "other"])

    assert sorted((lease.job_id, lease.attempt) for lease in taken) == sorted([(due, 2), (queued, 1)])
    standings = {
        name: await tables.standing(job_id)
        for name, job_id in {
            "done": done, "dead": dead, "waiting": waiting, "due": due, "leased": leased, "scheduled": scheduled, "queued": queued,
        }.items()
    }  # fmt: skip
    assert standings == {
        "done": "done 1/3",
        "dead": "dead 1/1",
        "waiting": "retry 1/3",
        "due": "leased 2/3",
        "leased": "leased 1/1",
        "scheduled": "queued 0/1",
        "queued": "leased 1/1",
    }


async def test_a_token_twice_in_one_call_is_answered_as_a_repeat(client: Client, tables: Tables) -> None:
    job_ids = [await client.enqueue(retry=retry()) for _ in range(3)]
    tokens = [lease.lease_token for lease in await client.poll(3)]

    completed = await client.stub.Complete(
        pb.CompleteRequest(
            completions=[pb.Completion(lease_token=tokens[0], result_json=text) for text in "12"]
        )
    )
    failed = await client.stub.Fail(
        pb.FailRequest(
            attempts=[pb.FailedAttempt(lease_token=tokens[1]), pb.FailedAttempt(lease_token=tokens[1])]
        )
    )
    released = await client.stub.Release(pb.ReleaseRequest(lease_tokens=[tokens[2], tokens[2]]))

    for answer in (completed, failed, released):
        assert [result.outcome for result in answer.results] == [OK, OK]
    assert failed.results[0].decision == failed.results[1].decision
    assert [await tables.standing(job_id) for job_id in job_ids] == ["done 1/3", "retry 1/3", "queued 0/3"]
    assert [event.result for event in await tables.events(job_ids[0], "action_completed")] == [1]


async def test_items_of_one_call_are_answered_each_by_itself_and_in_order(
    client: Client, tables: Tables
) -> None:
    job_ids = [await client.enqueue() for _ in range(3)]
    first, second, third = [lease.lease_token for lease in await client.poll(3)]

    response = await client.stub.Complete(
        pb.CompleteRequest(
            completions=[
                pb.Completion(lease_token="unknown"),
                pb.Completion(lease_token=third),
                pb.Completion(lease_token=second, result_json="{"),
                pb.Completion(lease_token=first),
            ]
        )
    )

    assert [result.outcome for result in response.results] == [LOST, OK, pb.LEASE_OUTCOME_INVALID, OK]
    assert response.results[2].error.startswith("completions[2].result_json: ")
    assert [(await tables.job(job_id)).status for job_id in job_ids] == ["done", "leased", "done"]


async def _has(tables: Tables, statement: str, count: int) -> bool:
    return bool(await tables.value(statement) == count)


async def _everything(tables: Tables) -> list[list[tuple[object, ...]]]:
    """All that the verbs could have changed."""
    return [
        await tables.rows(
            "SELECT queue_id, status, attempts, available_at FROM noetl.queue ORDER BY queue_id"
        ),
        await tables.rows(
            "SELECT event_id, job_id, event_type, attempt, result::text FROM noetl.event ORDER BY event_id"
        ),
        await tables.rows("SELECT * FROM noetl.lease"),
        await tables.rows("SELECT * FROM noetl.checkpoint"),
    ]
