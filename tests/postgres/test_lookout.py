"""How often a broker looks for what others may have put in."""

import asyncio
import math

import pytest

from broker.dispatcher import lookout as lookout_module
from broker.dispatcher.lookout import Lookout
from broker.errors import Unavailable
from broker.ids import IDS_PER_SECOND
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


async def test_a_rewind_reaches_back_to_where_a_lane_was_read_two_rewinds_ago(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "_REWIND_SECONDS", 0.0)
    lookout, names = _lookout(session, 1)
    lanes = lookout.queues["queue-0"]
    lanes.find(0)
    lanes.rewound_at = math.inf  # it is never its turn to be read from its head
    starts = []

    for seconds in (1, 2, 3, 4):
        lanes.floors[0].seq = seconds * 100 * IDS_PER_SECOND
        lookout.look_everywhere()
        await lookout.look_if_due(lambda: names)
        starts.append(lanes.floors[0].start // IDS_PER_SECOND)
        lanes.floors[0].landed(exhausted=True, settled=0)

    assert starts == [90, 190, 100, 200]


def _lookout(session: Session, queues: int) -> tuple[Lookout, set[str]]:
    names = {f"queue-{number}" for number in range(queues)}
    lookout = Lookout(session)
    lookout.subscribe(names)
    return lookout, names
