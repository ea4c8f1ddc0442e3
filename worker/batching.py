"""Items that become ready while a call is in flight share the next call.

Owns no timer: alone, an item goes at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_ITEMS = 1000  # of one call (broker_service.proto)
MOST_BYTES = 8 * 1024 * 1024  # half of what the broker takes in one request

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    size: int
    answer: "asyncio.Future[Answer]"


class SharedCall(Generic[Item, Answer]):
    """Makes one call at a time for any number of callers; answers come back in the order of the items.

    An error of a call is raised to every caller that shared it; each decides by itself whether to submit
    again.
    """

    def __init__(self, call: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]]) -> None:
        self._call = call
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._sender: asyncio.Task[None] | None = None

    def submit(self, item: Item, size: int) -> "asyncio.Future[Answer]":
        """The item's answer, to be awaited. `size` in bytes bounds how many share a call."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, size, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        return answer

    async def _send_all(self) -> None:
        while self._waiting:
            batch = self._take()
            if not batch:
                return
            try:
                answers = await self._call([waiting.item for waiting in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(answers)} answers to {len(batch)} items")
            except Exception as error:  # every caller is told; none may wait for ever
                for waiting in batch:
                    _settle(waiting.answer, error)
                continue
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    def _take(self) -> list[_Waiting[Item, Answer]]:
        batch: list[_Waiting[Item, Answer]] = []
        size = 0
        while self._waiting and len(batch) < MOST_ITEMS:
            if self._waiting[0].answer.done():  # its caller went away
                self._waiting.popleft()
                continue
            size += self._waiting[0].size
            if batch and size > MOST_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch


def _settle(answer: "asyncio.Future[Answer]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
