"""What is known of policies is bounded, and whoever decides meanwhile has those that it asked for."""

import asyncio

import pytest

from broker.job import NewJob
from broker.lifecycle import Lifecycle
from broker.policy.retry_policy import RetryPolicy, to_json
from broker.store import enqueue
from broker.store.enqueue import PolicyBodies
from broker.store.session import Session


@pytest.fixture
async def policies(lifecycle: Lifecycle, session: Session, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Three policies of the database, by number; more than a broker keeps in memory."""
    bodies = [to_json(RetryPolicy(max_attempts=number)) for number in (2, 3, 4)]
    await lifecycle.enqueue([NewJob("q", "task", "{}", policy=body, max_attempts=2) for body in bodies])
    monkeypatch.setattr(enqueue, "_KNOWN_LIMIT", 0)
    return dict(await session.rows("SELECT policy_id, body FROM retry_policy"))


async def test_policies_that_are_read_while_others_are_dropped_come_whole(
    policies: dict[int, str], session: Session, database_url: str
) -> None:
    first, second, third = policies
    bodies, other = PolicyBodies(), Session(database_url)
    await bodies.of(session, {first})

    found, _ = await asyncio.gather(bodies.of(session, {first, second}), bodies.of(other, {third}))

    await other.close()
    assert found == {first: policies[first], second: policies[second]}


async def test_policies_that_were_given_stay_with_who_asked(
    policies: dict[int, str], session: Session
) -> None:
    first, second, _ = policies
    bodies = PolicyBodies()
    found = await bodies.of(session, {first})

    await bodies.of(session, {second})

    assert found == {first: policies[first]}
