"""Runs own handlers as executors: synchronous ones in threads, asynchronous ones in the event loop of
their author.

The worker's own loop runs in another thread, so that a handler which blocks never looks dead to the broker.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from worker.failure import JobFailed, trace_of
from worker.handoff import Handoff
from worker.job import Job
from worker.threads import Threads

Handler = Callable[[Job], Any]


class AsyncHandler:
    """Runs a coroutine function in `home`, the loop in which its author's connections live."""

    def __init__(
        self, handler: Callable[[Job], Coroutine[Any, Any, Any]], home: Handoff, back: Handoff
    ) -> None:
        self._handler = handler
        self._home = home
        self._back = back

    async def execute(self, job: Job) -> Any:
        """The handler's result; cancellation cancels the coroutine and waits for it to end."""
        call = _ForeignCall(self._back)
        task: asyncio.Task[None] | None = None

        async def run() -> None:
            try:
                call.settle(await self._handler(job), None)
            except BaseException as error:  # SystemExit would end the author's loop
                call.settle(None, error)

        def start() -> None:
            nonlocal task
            task = asyncio.get_running_loop().create_task(run())

        def cancel() -> None:
            if task:
                task.cancel()

        self._home.call(start)
        return await call.outcome(on_cancel=lambda: self._home.call(cancel))


class SyncHandler:
    """Runs a plain function in a thread, any number side by side. Nothing can stop it: `job.should_stop` tells it."""

    def __init__(self, kind: str, handler: Handler, back: Handoff) -> None:
        self._handler = handler
        self._back = back
        self._threads = Threads(f"handler-{kind}")

    async def execute(self, job: Job) -> Any:
        """The handler's result; cancellation waits for the thread to end."""
        call = _ForeignCall(self._back)

        def run() -> None:
            try:
                call.settle(self._handler(job), None)
            except BaseException as error:  # SystemExit, too, is a failed attempt
                call.settle(None, error)

        self._threads.run(run)
        return await call.outcome(on_cancel=lambda: None)


class _ForeignCall:
    """A call that runs in another thread, awaited from this loop."""

    def __init__(self, back: Handoff) -> None:
        self._back = back
        self._result: tuple[Any, BaseException | None] | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Ends the call, from any thread; a worker that has exited meanwhile no longer asks."""
        with contextlib.suppress(RuntimeError):
            self._back.call(self._set, value, error)

    async def outcome(self, on_cancel: Callable[[], object]) -> Any:
        """The value or the error.

        Cancelled: calls `on_cancel`, waits until the call has ended, then passes it on.
        """
        try:
            await self._ended
        except asyncio.CancelledError:
            if self._result is None:  # the await has cancelled its future: wait by another one
                self._ended = asyncio.get_running_loop().create_future()
                on_cancel()
                await self._ended
            raise
        assert self._result
        value, error = self._result
        if error is None:
            return value
        if isinstance(error, Exception):
            raise error
        # SystemExit would end this loop, CancelledError would look like a stop of ours.
        raise JobFailed(str(error), type=type(error).__name__, stack_trace=trace_of(error))

    def _set(self, value: Any, error: BaseException | None) -> None:
        self._result = value, error
        if not self._ended.done():
            self._ended.set_result(None)
