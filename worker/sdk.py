"""What a handler's author uses: register functions by kind, then run."""

import asyncio
import inspect
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from worker.attempt import Executor
from worker.background import background_loop
from worker.client import Client
from worker.credentials import Credentials
from worker.handlers import AsyncHandler, Handler, SyncHandler
from worker.handoff import Handoff
from worker.log_lines import LOGGER, log_to_stderr
from worker.runner import Runner, RunnerOptions

AnyHandler = TypeVar("AnyHandler", bound=Handler)


class Worker:
    """Runs jobs of one broker's queues with your own handlers, and with `executors` where some are given.

    `broker` is HOST:PORT (default: REPRISE_BROKER, else 127.0.0.1:50051). `queues` are served strictly in
    their order, `concurrency` (1 to 10 000) steps at a time; up to twice as many leases are held, with those
    whose steps have ended and are being reported. A lease lasts `lease_seconds` (1 to 3600) and is extended
    until then. After `stop`, steps have `drain_seconds` to finish.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        queues: Sequence[str] = ("default",),
        concurrency: int = 10,
        lease_seconds: float = 30.0,
        drain_seconds: float = 30.0,
        worker_id: str | None = None,
        executors: Mapping[str, Executor] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._broker = broker
        self._options = RunnerOptions(
            worker_id=worker_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}",
            queues=tuple(queues),
            concurrency=concurrency,
            lease_seconds=lease_seconds,
            drain_seconds=drain_seconds,
        )
        self._executors = dict(executors or {})
        self._handlers: dict[str, Handler] = {}
        self._scrub: Callable[[str], str] = credentials.scrub if credentials else str
        self._stops = 0  # asked for, also before there is a runner
        self._runner: tuple[Runner, asyncio.AbstractEventLoop] | None = None

    def handler(self, kind: str) -> Callable[[AnyHandler], AnyHandler]:
        """Registers a function for jobs of this kind; it gets the Job, its return value (JSON) is the result.

        A plain function runs in a thread, as many side by side as `concurrency` says, a coroutine function in the event loop of `run` or
        `serve`.
        An exception fails the attempt. Raises ValueError where the kind is taken.
        """
        if kind in self._handlers or kind in self._executors:
            raise ValueError(f"kind {kind!r} has a handler already")

        def register(function: AnyHandler) -> AnyHandler:
            self._handlers[kind] = function
            return function

        return register

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second one ends it at once.

        Logs to stderr unless logging is set up already.

        Raises WorkerRefused. Call it from the main thread.
        """
        if not LOGGER.hasHandlers():
            log_to_stderr("info")
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            asyncio.run(self.serve())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def serve(self) -> None:
        """Serves until `stop`; asynchronous handlers run in this loop.

        Cancelled, it drains first. Raises WorkerRefused.
        """
        # In another thread the heartbeat goes on while a handler blocks this loop.
        work = asyncio.run_coroutine_threadsafe(self._work(asyncio.get_running_loop()), background_loop())
        ended = asyncio.wrap_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not ended.done():
            try:
                await asyncio.wait({ended})
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop()
        ended.result()
        if cancelled:
            raise cancelled

    def stop(self) -> None:
        """Stops taking jobs, from any thread or a signal handler; a second call gives the running ones back
        at once.
        """
        self._stops += 1
        if self._runner:
            runner, loop = self._runner
            loop.call_soon_threadsafe(runner.stop)

    def _on_signal(self, number: int, frame: object) -> None:
        self.stop()

    async def _work(self, home: asyncio.AbstractEventLoop) -> None:
        there, back = Handoff(home), Handoff(asyncio.get_running_loop())
        executors = {
            **self._executors,
            **{kind: _executor_of(kind, one, there, back) for kind, one in self._handlers.items()},
        }
        async with Client(self._broker) as client, AsyncExitStack() as stack:
            for executor in executors.values():
                if isinstance(executor, AbstractAsyncContextManager):
                    await stack.enter_async_context(executor)
            runner = Runner(client, executors, self._options, scrub=self._scrub, on_ready=self._announce)
            self._runner = runner, asyncio.get_running_loop()
            for _ in range(self._stops):
                runner.stop()
            try:
                await runner.run()
            finally:
                self._runner = None

    def _announce(self) -> None:
        sys.stderr.write(f"ready worker_id={self._options.worker_id}\n")
        sys.stderr.flush()


def _executor_of(kind: str, handler: Handler, home: Handoff, back: Handoff) -> Executor:
    # An object whose __call__ is a coroutine function is asynchronous, too.
    is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
    return AsyncHandler(handler, home, back) if is_async else SyncHandler(kind, handler, back)
