"""Threads for plain functions. Owns their number: always one that waits for the next call, so that no call waits for another to end."""

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """Runs calls in threads that are kept for later ones: starting one costs more than all the rest of a call that does nothing.

    Whoever takes a call sees to it that somebody waits for the next. Calls that end at once so share few threads, and the loop that hands
    them over starts none but the first.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._counting = threading.Lock()
        self._waiting = 0  # for a call, or about to

    def run(self, call: Callable[[], None]) -> None:
        """Has the call, which must not raise, run in a thread; as many side by side as there are calls.

        Raises RuntimeError where it needs a new thread and the system gives none.
        """
        if self._waiting == 0:
            self._start_one()
        self._calls.put(call)

    def _start_one(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            # Daemon: a call that never ends must not keep a worker from exiting.
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._counting:
                self._waiting -= 1
            raise

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            with self._counting:
                self._waiting -= 1
                is_last = self._waiting == 0
            if is_last:
                with contextlib.suppress(RuntimeError):  # then the next caller learns it
                    self._start_one()
            call()
            del call  # what it holds must not live until the next one comes
            with self._counting:
                self._waiting += 1
