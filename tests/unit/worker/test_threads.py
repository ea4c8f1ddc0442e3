"""Threads for plain functions: no call waits for another to end, and threads are kept."""

import threading
from unittest.mock import Mock

import pytest

from worker.threads import Threads


def test_call_runs_though_all_before_it_never_end() -> None:
    threads = Threads("t")
    met = threading.Barrier(21)

    def never_end() -> None:
        met.wait(5)
        threading.Event().wait()

    for _ in range(20):
        threads.run(never_end)
    assert met.wait(5) >= 0


def test_calls_one_after_the_other_share_a_thread_and_its_successor() -> None:
    threads = Threads("t")
    used: set[int] = set()
    ended = threading.Semaphore(0)

    def end() -> None:
        used.add(threading.get_ident())
        ended.release()

    for _ in range(50):
        threads.run(end)
        assert ended.acquire(timeout=5)
    assert len(used) <= 3


def test_call_for_which_the_system_gives_no_thread_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads("t")
    ran = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            threads.run(lambda: None)
    threads.run(ran.set)
    assert ran.wait(5)
