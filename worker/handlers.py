"""Runs own handlers as executors: synchronous ones each in a thread, asynchronous ones in the event loop of
their author.

The worker's own loop runs in another thread, so that a handler which blocks never looks dead to the broker.
"""

import asyncio
import contextlib
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from worker.failure import JobFailed
from worker.job import Job

Handler = Callable[[Job], Any]


class AsyncHandler:
    """Runs a coroutine function in `home`, the loop in which its author's connections live."""

    def __init__(
        self, handler: Callable[[Job], Coroutine[Any, Any, Any]], home: asyncio.AbstractEventLoop
    ) -> None:
        self._handler = handler
        self._home = home

    async def execute(self, job: Job) -> Any:
        """The handler's result; cancellation cancels the coroutine and waits for it to end."""
        call = _ForeignCall()
        task: asyncio.Task[None] | None = None

        async def run() -> None:
            try:
                call.settle(await self._handler(job), None)
            except BaseException as error:  # SystemExit would end the author's loop
                call.settle(None, error)

        def start() -> None:
            nonlocal task
            task = self._home.create_task(run())

        def cancel() -> None:
            if task:
                task.cancel()

        self._home.call_soon_threadsafe(start)
        return await call.outcome(on_cancel=lambda: self._home.call_soon_threadsafe(cancel))


class SyncHandler:
    """Runs a plain function in a thread of its own. Nothing can stop it: `job.should_stop` tells it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def execute(self, job: Job) -> Any:
        """The handler's result; cancellation waits for the thread to end."""
        call = _ForeignCall()

        def run() -> None:
            try:
                call.settle(self._handler(job), None)
            except BaseException as error:  # SystemExit, too, is a failed attempt
                call.settle(None, error)

        # Daemon: a handler that never ends must not keep a worker from exiting.
        threading.Thread(target=run, name=f"handler-{job.kind}", daemon=True).start()
        return await call.outcome(on_cancel=lambda: None)


class _ForeignCall:
    """A call that runs in another thread, awaited from this loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Ends the call, from any thread; a worker that has exited meanwhile no longer asks."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set, (value, error))

    async def outcome(self, on_cancel: Callable[[], object]) -> Any:
        """The value or the error.

        Cancelled: calls `on_cancel`, waits until the call has ended, then passes it on.
        """
        try:
            value, error = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.shield(self._ended)
            raise
        if error is None:
            return value
        if isinstance(error, Exception):
            raise error
        # SystemExit would end this loop, CancelledError would look like a stop of ours.
        trace = "".join(traceback.format_exception(error))
        raise JobFailed(str(error), type=type(error).__name__, stack_trace=trace)

    def _set(self, ended: tuple[Any, BaseException | None]) -> None:
        if not self._ended.done():
            self._ended.set_result(ended)
