"""Calls from other threads into an event loop; calls that come together share one wake-up of it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Handoff:
    """Runs calls in `loop`, in the order in which they were made. They must not raise."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_woken = False

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Has the function called soon, from any thread. Raises RuntimeError where the loop is closed."""
        self._calls.append((function, arguments))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        # First, so that a call which is put in from here on wakes the loop again.
        self._is_woken = False
        for _ in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            function(*arguments)
