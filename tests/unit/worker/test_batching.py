"""Items that become ready while a call is in flight share the next one."""

import asyncio
from collections.abc import Sequence

import pytest

from worker.batching import MOST_BYTES, MOST_ITEMS, SharedCall


class Recorder:
    """Answers each item with its double, once `gate` is open, and remembers how items were grouped."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.called = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.called.set()
        await self.gate.wait()
        if 13 in items:
            raise RuntimeError("unlucky")
        return [item * 2 for item in items]


async def test_items_of_a_call_in_flight_share_the_next() -> None:
    recorder = Recorder()
    shared = SharedCall(recorder)
    first = shared.submit(1, 1)
    await recorder.called.wait()
    later = [shared.submit(item, 1) for item in (2, 3, 4)]
    recorder.gate.set()
    assert await asyncio.gather(first, *later) == [2, 4, 6, 8]
    assert recorder.groups == [[1], [2, 3, 4]]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(MOST_ITEMS + 1, 1, [MOST_ITEMS, 1]), (3, MOST_BYTES // 2, [2, 1]), (2, MOST_BYTES * 2, [1, 1])],
)
async def test_a_call_is_bounded_in_items_and_bytes(count: int, size: int, sizes: list[int]) -> None:
    recorder = Recorder()
    shared = SharedCall(recorder)
    recorder.gate.set()
    await asyncio.gather(*(shared.submit(item + 100, size) for item in range(count)))
    assert [len(group) for group in recorder.groups] == sizes


async def test_error_reaches_every_caller_and_the_next_call_goes_on() -> None:
    recorder = Recorder()
    shared = SharedCall(recorder)
    recorder.gate.set()
    answers = await asyncio.gather(shared.submit(13, 1), shared.submit(2, 1), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["unlucky", "unlucky"]
    assert await shared.submit(3, 1) == 6


async def test_item_whose_caller_went_away_is_not_sent() -> None:
    recorder = Recorder()
    shared = SharedCall(recorder)
    first = shared.submit(1, 1)
    await recorder.called.wait()
    gone, kept = shared.submit(2, 1), shared.submit(3, 1)
    gone.cancel()
    recorder.gate.set()
    assert [await first, await kept] == [2, 6]
    assert recorder.groups == [[1], [3]]
