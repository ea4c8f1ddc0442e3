"""How often a broker looks for what others may have put in."""

import asyncio

import pytest

from broker.dispatcher.lookout import Lookout
from broker.errors import Unavailable
from broker.store.session import Session


@pytest.mark.parametrize(
    ("queues", "hears", "seconds"),
    [
        (10, True, 2.0),
        (10, False, 0.25),
        (1_999, True, 2.0),
        (300, False, 0.3),
        (5_000, True, 5.0),
        (5_000, False, 5.0),
        (20_000, True, 10.0),
    ],
)
async def test_the_more_queues_the_longer_until_the_next_look(
    session: Session, queues: int, hears: bool, seconds: float
) -> None:
    lookout, names = _lookout(session, queues)
    lookout.hears(others=hears)

    before = asyncio.get_running_loop().time()
    await lookout.look_if_due(lambda: names)
    after = asyncio.get_running_loop().time()

    assert before + seconds <= lookout.next_look_at <= after + seconds


async def test_a_look_that_failed_is_still_due() -> None:
    lookout, names = _lookout(Session("postgresql://127.0.0.1:1/nowhere"), 5_000)

    for _ in range(2):
        with pytest.raises(Unavailable):
            await lookout.look_if_due(lambda: names)


def _lookout(session: Session, queues: int) -> tuple[Lookout, set[str]]:
    names = {f"queue-{number}" for number in range(queues)}
    lookout = Lookout(session)
    lookout.subscribe(names)
    return lookout, names
