"""Calls from another thread into an event loop."""

import asyncio
import threading

import pytest

from worker.handoff import Handoff


async def test_calls_of_other_threads_all_run_in_their_order() -> None:
    seen: list[int] = []
    done = asyncio.Event()
    handoff = Handoff(asyncio.get_running_loop())

    def call_all() -> None:
        for number in range(10_000):
            handoff.call(seen.append, number)
        handoff.call(done.set)

    threading.Thread(target=call_all).start()
    await done.wait()
    assert seen == list(range(10_000))


async def test_calls_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wakes: list[object] = []
    monkeypatch.setattr(loop, "call_soon_threadsafe", wakes.append)
    handoff = Handoff(loop)
    for number in range(3):
        handoff.call(print, number)
    assert len(wakes) == 1
