"""One broker process: wires verbs, dispatcher, timers and services together, starts them in order and stops them in reverse."""

import asyncio
import gc
import logging
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from reprise.v1 import (
    broker_service_pb2,
    broker_service_pb2_grpc,
    playbook_service_pb2,
    playbook_service_pb2_grpc,
    policy_service_pb2,
    policy_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
)

from broker.config import BrokerConfig
from broker.dispatcher import Dispatcher
from broker.ears import Ears
from broker.hints import Speaker
from broker.lifecycle import Lifecycle, Signals
from broker.lifecycle.tokens import TokenCodec
from broker.maintenance import MAINTENANCE_SECONDS, Maintenance
from broker.retention import RETENTION_SECONDS, Retention
from broker.service.broker_service import BrokerService
from broker.service.health import Health
from broker.service.playbook_reads import PlaybookReads
from broker.service.playbook_service import PlaybookService
from broker.service.policy_service import PolicyService
from broker.service.queue_service import QueueService
from broker.store.installation import token_key
from broker.store.listen import Listener
from broker.store.migrate import check_version, migrate
from broker.store.reader import Reader
from broker.store.session import STATEMENT_TIMEOUT_SECONDS, Session, wait_until_reachable
from broker.timers import Promoter, Reaper, Timer

T = TypeVar("T")
_log = logging.getLogger(__name__)

_SERVICES = (
    broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"].full_name,
    queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"].full_name,
    playbook_service_pb2.DESCRIPTOR.services_by_name["PlaybookService"].full_name,
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"].full_name,
)
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_concurrent_streams", 10_000),
    # Calls that have come in and wait for the loop: from 1000 on, by default, gRPC resets some of them with CANCELLED, which says
    # nothing to a client. What is too much is refused by us, with RetryInfo.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


# Python looks for cycles of garbage whenever so many more objects were made than freed. The default of 700 is passed several times by each
# large call, for nothing: messages and jobs hold no cycles. With this a mixed lifecycle costs a broker a tenth less (measured 2026-11).
_COLLECTION_THRESHOLDS = (50_000, 20, 20)


class ListenFailed(Exception):
    """The address cannot be listened on."""


async def serve(config: BrokerConfig, ready: Callable[[str], None]) -> None:
    """Runs a broker until SIGTERM or SIGINT; `ready` is called with HOST:PORT once it serves.

    A signal that comes before it serves, while it waits for its database, breaks the start off; that too is a clean end.

    Raises SchemaMismatch when the database is on another schema version, Unavailable when it cannot be reached, ListenFailed.
    """
    starting = asyncio.current_task()
    assert starting is not None
    stop = asyncio.Event()
    _on_stop_signals(starting.cancel)
    try:
        async with running(config) as address:
            _on_stop_signals(stop.set)
            _collect_seldom()
            ready(address)
            await stop.wait()
            _log.info("stopping")
    except asyncio.CancelledError:
        _log.info("stopping before it served")


def _collect_seldom() -> None:
    """Has Python look for garbage less often, and never in what was there from the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)


def _on_stop_signals(act: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act)


@asynccontextmanager
async def running(config: BrokerConfig) -> AsyncIterator[str]:
    """A broker that serves inside the block, at the address that is yielded."""
    await wait_until_reachable(config.database_url, config.database_wait_seconds)
    if config.migrate:
        for name in await migrate(config.database_url):
            _log.info("migrated file=%s", name)
    await check_version(config.database_url)
    async with AsyncExitStack() as stack:
        yield await _start(config, stack)


async def _start(config: BrokerConfig, stack: AsyncExitStack) -> str:
    session = Session(config.database_url)
    codec = TokenCodec(await token_key(session))
    await session.close()

    signals = Signals()
    lifecycle = Lifecycle(config.database_url, signals, random.random)
    stack.push_async_callback(lifecycle.close)
    dispatcher = Dispatcher(config.database_url, signals, lifecycle.give_back)
    lifecycle.offer_to(dispatcher)
    lifecycle.recall_from(dispatcher.holdings)
    stack.push_async_callback(dispatcher.close)

    speaker = Speaker(config.database_url, dispatcher.wanted, dispatcher.promises)
    dispatcher.alone = speaker.is_alone
    sweeps = Session(config.database_url), Session(config.database_url)
    due = Timer("due", Promoter(sweeps[0], dispatcher, signals))
    expiry = Timer("expiry", Reaper(sweeps[1], lifecycle.expire))
    maintenance = Maintenance(config.database_url)
    upkeep = Timer("upkeep", maintenance, MAINTENANCE_SECONDS)
    retention = Retention(config.database_url, config.retention_days)
    old_jobs = Timer("retention", retention, RETENTION_SECONDS)
    timers = [expiry, upkeep] + ([old_jobs] if config.retention_days else [])
    for actor in (*sweeps, maintenance, retention, speaker):
        stack.push_async_callback(actor.close)

    reader = Reader(config.database_url)
    await reader.open()
    stack.push_async_callback(reader.close)

    signals.arrived = _each(dispatcher.arrived, speaker.arrived)
    signals.due_in = due.due_in
    signals.leased_for = expiry.due_in
    signals.confirmed = dispatcher.holdings.confirmed
    signals.ended = dispatcher.holdings.ended
    signals.lost = _each(dispatcher.holdings.lost, speaker.lost)
    signals.cancelled = _each(dispatcher.holdings.cancelled, speaker.cancelled)

    closing = asyncio.Event()
    # Unless it is told to share, a second broker on the same port would bind silently and take half of the connections.
    server = grpc.aio.server(options=(*_OPTIONS, ("grpc.so_reuseport", int(config.shares_port))))
    _find_methods_by_name(server)
    health = Health(_SERVICES)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(
        BrokerService(lifecycle, dispatcher, codec, closing), server
    )
    queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueService(reader, dispatcher), server)
    playbooks = PlaybookService(lifecycle.executions, PlaybookReads(reader), closing)
    signals.execution_changed = playbooks.changed
    playbook_service_pb2_grpc.add_PlaybookServiceServicer_to_server(playbooks, server)
    policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyService(), server)
    reflection.enable_server_reflection(
        (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
        server,
    )
    address = _listen(server, config.listen)

    for leasing in (dispatcher, due):
        task = asyncio.create_task(leasing.run())
        task.add_done_callback(_report_end)
        stack.push_async_callback(_stopped, leasing, task)
    ears = Ears(dispatcher, speaker, health, [timer.wake for timer in (due, *timers)])
    listener = Listener(config.database_url, speaker.broker_id, ears)
    for run in (*(timer.run for timer in timers), speaker.run, listener.run):
        task = asyncio.create_task(run())
        task.add_done_callback(_report_end)
        stack.push_async_callback(_cancelled, task)
    await server.start()
    stack.push_async_callback(_stop, server, health, closing, config.grace_seconds)
    await health.serves(now=True)
    return address


def _each(*told: Callable[[Iterable[T]], None]) -> Callable[[Iterable[T]], None]:
    """A signal that goes to several."""

    def tell(items: Iterable[T]) -> None:
        known = tuple(items)
        for tell_one in told:
            tell_one(known)

    return tell


def _find_methods_by_name(server: grpc.aio.Server) -> None:
    """Has generated code name its methods to the server in one way only, that by which any method is found when it is called.

    By the other way, registered methods, grpc.aio waits for the next call of each of some thirty methods, and begins to wait for all of
    them anew with each call: a tenth of the CPU time of a small one (measured 2026-11 with grpcio 1.85.1).
    """
    server.add_registered_method_handlers = lambda *_: None  # type: ignore[attr-defined]


def _listen(server: grpc.aio.Server, listen: str) -> str:
    host = listen.rpartition(":")[0]
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ListenFailed(f"cannot listen on {listen}: is another broker running there?") from error
    return f"{host}:{port}"


async def _stop(
    server: grpc.aio.Server,
    health: Health,
    closing: asyncio.Event,
    grace_seconds: float,
) -> None:
    """Tells clients first, then lets calls in flight end."""
    await health.close()
    closing.set()
    await server.stop(grace_seconds)


async def _stopped(leasing: Dispatcher | Timer, task: asyncio.Task[None]) -> None:
    """Lets the statement in flight come back that may lease jobs, so that its leases are given back and not lost."""
    leasing.stop()
    await asyncio.wait([task], timeout=2 * STATEMENT_TIMEOUT_SECONDS)
    await _cancelled(task)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("an actor of the broker has died: stopping", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)
