"""What tells a handler that its attempt is over."""

import threading

from worker.job import StopSignal


def test_whoever_waits_is_told_and_so_is_whoever_comes_later() -> None:
    signal = StopSignal()
    told: list[bool] = []
    waiting = [threading.Thread(target=lambda: told.append(signal.wait(5))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert (signal.is_set(), signal.wait(0)) == (False, False)
    signal.set()
    for thread in waiting:
        thread.join()
    assert (told, signal.is_set(), signal.wait(0)) == ([True] * 3, True, True)


def test_wait_after_the_end_returns_at_once() -> None:
    signal = StopSignal()
    signal.set()
    assert signal.wait() is True
