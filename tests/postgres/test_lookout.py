"""How often a broker looks for what others may have put in."""

import asyncio

import pytest

from broker.dispatcher.lookout import DEAF_POLL_SECONDS, POLL_SECONDS, Lookout
from broker.store.session import Session


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("queues", [10, 5_000])
async def test_the_more_queues_the_longer_until_the_next_look(
    session: Session, queues: int, hears: bool
) -> None:
    names = {f"queue-{number}" for number in range(queues)}
    lookout = Lookout(session)
    lookout.subscribe(names)
    lookout.hears(others=hears)

    before = asyncio.get_running_loop().time()
    await lookout.look_if_due(lambda: names)
    after = asyncio.get_running_loop().time()

    between = max(POLL_SECONDS if hears else DEAF_POLL_SECONDS, queues / 1_000)
    assert before + between <= lookout.next_look_at <= after + between
