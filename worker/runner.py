"""The worker's life: one lease stream, as many steps at once as there are slots, their reports and a heartbeat
beside them, a clean end.

Owns slots and credits. Credits at the broker and slots in use never exceed the concurrency together.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc

from worker.attempt import STOP_SECONDS, Attempt, Ended, Executor, Stop
from worker.client import Client, extend_seconds
from worker.heartbeat import Heartbeat
from worker.lease import Delivery, Lease, Outcome
from worker.lease_stream import LeaseStream
from worker.log_lines import LOGGER, line
from worker.repeating import Backoff, is_repeatable, retry_info_of
from worker.report import EXIT_SECONDS, Reporter, log_start

# What no reconnect mends: the worker itself is set up wrongly.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class WorkerRefused(Exception):
    """The broker does not take this worker as it is configured; the text says why."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How a worker takes work.

    `concurrency` is 1 to 10 000, `lease_seconds` 1 to 3600, `drain_seconds` 0 or more.
    """

    worker_id: str
    queues: Sequence[str]
    concurrency: int
    lease_seconds: float
    drain_seconds: float


class Runner:
    """Takes leases, runs and reports them until stopped."""

    def __init__(
        self,
        client: Client,
        executors: Mapping[str, Executor],
        options: RunnerOptions,
        *,
        scrub: Callable[[str], str] = str,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`scrub` takes secrets out of a failure's texts; `on_ready` is called once, when the first stream is
        open.
        """
        self._client = client
        self._executors = executors
        self._options = options
        self._scrub = scrub
        self._on_ready: Callable[[], None] | None = on_ready
        self._reporter = Reporter(client, options.lease_seconds)
        self._held: dict[str, Attempt] = {}  # by lease token: not yet reported
        self._heartbeat = Heartbeat(client, options.lease_seconds, self._held.values)
        self._attempts: set[asyncio.Task[None]] = set()  # until they are reported
        self._steps = 0  # that run, each in a slot
        self._overdue: dict[Attempt, asyncio.Task[None]] = {}  # reports of attempts whose steps go on
        self._credits = 0  # at the broker, unused
        self._stream: LeaseStream | None = None
        self._was_open = False  # the last stream that was tried
        self._warned = ""  # since the broker last delivered
        self._draining = asyncio.Event()
        self._exiting = asyncio.Event()

    def stop(self) -> None:
        """Stops taking and lets the steps finish; a second call gives them back at once."""
        if self._draining.is_set():
            self._exiting.set()
        self._draining.set()

    async def run(self) -> None:
        """Returns after `stop`, when nothing is held any more.

        Raises WorkerRefused, and whatever ended the heartbeat: without it no lease may be kept.
        """
        heartbeat = asyncio.create_task(self._heartbeat.run())
        heartbeat.add_done_callback(lambda _: self._exit())
        taking = asyncio.create_task(self._take())
        draining = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait({taking, draining}, return_when=asyncio.FIRST_COMPLETED)
            await self._confirm_held()
            taking.cancel()
            await asyncio.wait({taking})
            await self._drain()
        finally:
            for task in (heartbeat, draining, taking, *self._attempts):
                task.cancel()
            await asyncio.gather(heartbeat, draining, *self._attempts, return_exceptions=True)
        for task in (heartbeat, taking):
            if not task.cancelled() and (error := task.exception()):
                raise error

    def _exit(self) -> None:
        self._draining.set()
        self._exiting.set()

    async def _take(self) -> None:
        backoff = Backoff()
        while not self._draining.is_set():
            asked: timedelta | None = None
            try:
                await self._follow_stream(backoff)
                LOGGER.info(line("lease stream ended", worker_id=self._options.worker_id))
            except TimeoutError:
                LOGGER.warning(line("lease stream fell silent", worker_id=self._options.worker_id))
            except grpc.aio.AioRpcError as error:
                if error.code() in _REFUSALS and not is_repeatable(error):
                    raise WorkerRefused(f"{error.code().name}: {error.details()}") from error
                asked = retry_info_of(error)
                self._warn_once(error)
            # What was on its way when the stream broke may be lost: the next beat tells.
            self._heartbeat.beat_now()
            await asyncio.sleep(backoff.next_wait(asked))

    def _warn_once(self, error: grpc.aio.AioRpcError) -> None:
        """One warning however often the same happens, until the broker delivers again; the rest is for debugging."""
        event = "lease stream broke" if self._was_open else "cannot reach the broker, tries again"
        text = line(event, code=error.code().name, error=error.details())
        LOGGER.log(logging.DEBUG if text == self._warned else logging.WARNING, text)
        self._warned = text

    async def _follow_stream(self, backoff: Backoff) -> None:
        options = self._options
        self._credits = max(0, self._free_slots())
        self._was_open = False
        stream = await self._client.open_leases(
            options.worker_id, options.queues, options.lease_seconds, self._credits
        )
        self._was_open = True
        async with stream:
            self._stream = stream
            try:
                self._give_credits()
                if self._on_ready:
                    self._on_ready()
                    self._on_ready = None
                async for delivery in stream:
                    backoff.reset()
                    if self._warned:
                        LOGGER.info(line("the broker answers again", worker_id=options.worker_id))
                        self._warned = ""
                    self._accept(stream, delivery)
            finally:
                self._stream = None

    def _accept(self, stream: LeaseStream, delivery: Delivery) -> None:
        # What comes while draining is left unreceived: the broker takes it back when the stream ends.
        if delivery.leases and not self._draining.is_set():
            stream.acknowledge([lease.token for lease in delivery.leases])
            self._credits -= len(delivery.leases)
            for lease in delivery.leases:
                self._start(lease)
        for notice in delivery.notices:
            if attempt := self._held.get(notice.token):
                attempt.stop(Stop.CANCELLED if notice.outcome is Outcome.CANCELLED else Stop.LOST)

    def _start(self, lease: Lease) -> None:
        attempt = Attempt(lease, self._executors, self._scrub, self._report_overdue)
        self._held[lease.token] = attempt
        self._steps += 1
        task = asyncio.create_task(self._run(attempt))
        self._attempts.add(task)
        task.add_done_callback(self._forget)

    async def _run(self, attempt: Attempt) -> None:
        try:
            log_start(attempt, self._options.worker_id)
            ended = await attempt.run()
        finally:
            self._steps -= 1
        # While this is reported the broker may send the next job.
        self._give_credits()
        if ended:
            await self._report(attempt, ended)
        else:
            await self._overdue.pop(attempt)

    async def _report(self, attempt: Attempt, ended: Ended) -> None:
        try:
            await self._reporter.report(attempt, ended)
        except Exception:  # a fault of the worker's own must cost one attempt, not the worker
            LOGGER.exception(line("attempt not reported", job_id=attempt.lease.job.job_id))
        finally:
            del self._held[attempt.lease.token]

    def _report_overdue(self, attempt: Attempt, ended: Ended) -> None:
        # Its step keeps the slot until it ends: a thread that was told to stop may take its time.
        self._overdue[attempt] = asyncio.create_task(self._report(attempt, ended))

    def _forget(self, attempt: "asyncio.Task[None]") -> None:
        self._attempts.discard(attempt)
        self._give_credits()

    def _free_slots(self) -> int:
        """Where jobs may start. Held at most: twice as many attempts as there are slots, running or to be reported."""
        concurrency = self._options.concurrency
        return min(concurrency - self._steps, 2 * concurrency - len(self._attempts))

    def _give_credits(self) -> None:
        free = self._free_slots() - self._credits
        if self._stream and free > 0 and not self._draining.is_set():
            self._credits += free
            self._stream.grant(free)

    async def _confirm_held(self) -> None:
        """Extends what is held while the stream is still open.

        Acknowledgements that a cancelled stream no longer sends would let the broker give running leases to
        another worker; an extended lease counts as received.
        """
        if not self._held or not self._stream:
            return
        confirming = asyncio.create_task(self._heartbeat.confirm())
        exiting = asyncio.create_task(self._exiting.wait())
        try:
            await asyncio.wait(
                {confirming, exiting},
                timeout=extend_seconds(self._options.lease_seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            confirming.cancel()
            exiting.cancel()

    async def _drain(self) -> None:
        """Lets steps finish for a while, then takes their leases back and releases them."""
        if not self._attempts:
            return
        LOGGER.info(line("draining", attempts=len(self._attempts), drain_seconds=self._options.drain_seconds))
        all_ended = asyncio.create_task(asyncio.wait(set(self._attempts)))
        exiting = asyncio.create_task(self._exiting.wait())
        await asyncio.wait(
            {all_ended, exiting}, timeout=self._options.drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        exiting.cancel()
        self._reporter.hurry()
        for attempt in list(self._held.values()):
            attempt.stop(Stop.SHUTDOWN)
        await asyncio.wait({all_ended}, timeout=STOP_SECONDS + EXIT_SECONDS)
        all_ended.cancel()
