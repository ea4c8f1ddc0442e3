"""Own handlers, and the worker as a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2

from tests.unit.worker.conftest import Listening
from tests.unit.worker.peer import Peer, PeerStream, Refusal, lease, seconds
from worker import Job, JobFailed, Worker
from worker.runner import WorkerRefused


class Downstream503(Exception):
    status_code = 503
    retry_after = 30


Serve = Callable[[Worker], Any]


@pytest.fixture
async def serve(peer: Peer) -> AsyncIterator[Serve]:
    workers: list[tuple[Worker, asyncio.Task[None]]] = []

    async def begin(worker: Worker) -> PeerStream:
        workers.append((worker, asyncio.create_task(worker.serve())))
        stream: PeerStream = await peer.next(peer.streams)
        return stream

    yield begin
    for worker, task in workers:
        worker.stop()
        worker.stop()
        await asyncio.gather(task, return_exceptions=True)


async def failure_of_handler(
    listening: Listening, serve: Serve, error: BaseException, *, is_async: bool
) -> job_pb2.Failure:
    """What a worker reports of a job whose handler raises the error."""
    worker = Worker(listening.address)

    def plain(job: Job) -> None:
        raise error

    async def coroutine(job: Job) -> None:
        raise error

    worker.handler("x")(coroutine if is_async else plain)
    (await serve(worker)).deliver(lease("a", "x"))
    failure: job_pb2.Failure = (await listening.peer.next(listening.peer.failed)).failure
    return failure


async def test_plain_and_coroutine_handlers_return_results(listening: Listening, serve: Serve) -> None:
    worker = Worker(listening.address)
    home = asyncio.get_running_loop()

    @worker.handler("plain")
    def plain(job: Job) -> dict[str, Any]:
        return {"to": job.input["to"], "in_thread": threading.current_thread().name}

    @worker.handler("coroutine")
    async def coroutine(job: Job) -> bool:
        return asyncio.get_running_loop() is home

    stream = await serve(worker)
    stream.deliver(lease("a", "plain", '{"to": "ann"}'), lease("b", "coroutine"))
    peer = listening.peer
    done = [await peer.next(peer.completed), await peer.next(peer.completed)]
    results = {one.lease_token: json.loads(one.result_json) for one in done}
    assert results == {"a": {"to": "ann", "in_thread": "handler-plain"}, "b": True}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (Downstream503("busy"), ("Downstream503", "busy", 503, seconds(30))),
        (JobFailed("no", type="mail.refused", status_code=550), ("mail.refused", "no", 550, seconds(0))),
        (SystemExit("gone"), ("SystemExit", "gone", 0, seconds(0))),
        (asyncio.CancelledError(), ("CancelledError", "CancelledError", 0, seconds(0))),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_exception_becomes_a_failure(
    listening: Listening, serve: Serve, error: BaseException, facts: tuple[Any, ...], is_async: bool
) -> None:
    failure = await failure_of_handler(listening, serve, error, is_async=is_async)
    assert (failure.type, failure.message, failure.status_code, failure.retry_after) == facts


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [KeyError("to"), JobFailed("no"), SystemExit("gone")], ids=repr)
async def test_stack_trace_begins_with_the_handlers_own_line(
    listening: Listening, serve: Serve, error: BaseException, is_async: bool
) -> None:
    failure = await failure_of_handler(listening, serve, error, is_async=is_async)
    head, first, line, *_ = failure.stack_trace.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{__file__}", line ')
    assert line.strip() == "raise error"


async def test_result_that_is_not_json_fails_the_attempt(listening: Listening, serve: Serve) -> None:
    worker = Worker(listening.address)
    worker.handler("x")(lambda job: {1, 2})
    (await serve(worker)).deliver(lease("a", "x"))
    assert (await listening.peer.next(listening.peer.failed)).failure.type == "result_not_json"


async def test_coroutine_that_blocks_its_loop_never_looks_dead(listening: Listening, serve: Serve) -> None:
    worker = Worker(listening.address, lease_seconds=1)
    beats: list[bool] = []

    def serve_in_thread() -> None:
        async def blocking(job: Job) -> None:
            beats.extend(listening.peer.beats.acquire(timeout=5) for _ in range(3))

        worker.handler("x")(blocking)
        asyncio.run(worker.serve())

    thread = threading.Thread(target=serve_in_thread)
    thread.start()
    (await listening.peer.next(listening.peer.streams)).deliver(lease("a", "x"))
    await listening.peer.next(listening.peer.completed)
    worker.stop()
    await asyncio.to_thread(thread.join)
    assert beats == [True] * 3


async def test_thread_that_cannot_be_killed_is_told_and_keeps_its_slot(
    listening: Listening, serve: Serve
) -> None:
    worker = Worker(listening.address, concurrency=1, lease_seconds=1)
    told, may_end = threading.Event(), threading.Event()

    @worker.handler("x")
    def stubborn(job: Job) -> None:
        job.stopped.wait(5)
        if job.should_stop:
            told.set()
        may_end.wait(5)

    stream = await serve(worker)
    stream.deliver(lease("a", "x"))
    await stream.until(lambda: stream.received == ["a"])
    stream.notify("a", pb.LeaseNotice.KIND_LOST)
    assert await asyncio.to_thread(told.wait, 5)
    for _ in range(2):  # beats of an attempt that has not ended
        await listening.peer.next(listening.peer.extended)
    assert stream.credits == 0
    may_end.set()
    await stream.until(lambda: stream.credits == 1)


async def test_cancelled_coroutine_can_clean_up(listening: Listening, serve: Serve) -> None:
    worker = Worker(listening.address)
    started, cleaned = asyncio.Event(), asyncio.Event()

    @worker.handler("x")
    async def endless(job: Job) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    stream = await serve(worker)
    stream.deliver(lease("a", "x"))
    await started.wait()
    stream.notify("a", pb.LeaseNotice.KIND_CANCELLED)
    assert (await listening.peer.next(listening.peer.failed)).failure.type == "cancelled"
    assert cleaned.is_set()


async def test_refusal_is_raised_to_whoever_serves(listening: Listening) -> None:
    serving = asyncio.create_task(Worker(listening.address).serve())
    stream = await listening.peer.next(listening.peer.streams)
    stream.break_off(Refusal(grpc.StatusCode.PERMISSION_DENIED, "not you"))
    with pytest.raises(WorkerRefused, match="not you"):
        await serving


async def test_cancelled_serve_drains_first(listening: Listening) -> None:
    worker = Worker(listening.address)
    started, may_end = asyncio.Event(), asyncio.Event()

    @worker.handler("x")
    async def slow(job: Job) -> None:
        started.set()
        await may_end.wait()

    serving = asyncio.create_task(worker.serve())
    stream = await listening.peer.next(listening.peer.streams)
    stream.deliver(lease("a", "x"))
    await started.wait()
    serving.cancel()
    await stream.until(lambda: stream.is_over)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert (await listening.peer.next(listening.peer.completed)).lease_token == "a"


def test_kind_has_one_handler() -> None:
    worker = Worker()
    worker.handler("x")(lambda job: 1)
    with pytest.raises(ValueError, match="'x'"):
        worker.handler("x")


async def test_process_is_ready_works_and_drains_on_sigterm(listening: Listening) -> None:
    process = _start_worker(listening.address, "--concurrency", "2", "--log-level", "debug")
    assert process.stderr
    stream = await listening.peer.next(listening.peer.streams)
    lines = await asyncio.to_thread(_lines_until, process, "ready worker_id=w9")
    spin = json.dumps({"code": "import time\ndef main():\n    time.sleep(0.3)\n    return 'slept'"})
    stream.deliver(lease("a", "python", spin))
    await stream.until(lambda: stream.received == ["a"])
    process.send_signal(signal.SIGTERM)
    completion = await listening.peer.next(listening.peer.completed)
    lines += (await asyncio.to_thread(process.communicate))[1].splitlines()
    assert (stream.subscription.worker_id, stream.credits) == ("w9", 1)
    assert completion.result_json == '"slept"'
    assert process.returncode == 0
    assert any("attempt completed job_id=7" in line for line in lines)
    assert not [line for line in lines if " WARNING " in line or " ERROR " in line]


async def test_second_sigterm_ends_the_process_at_once(listening: Listening) -> None:
    process = _start_worker(listening.address)
    stream = await listening.peer.next(listening.peer.streams)
    stream.deliver(lease("a", "python", '{"code": "def main():\\n    while True: pass"}'))
    await stream.until(lambda: stream.received == ["a"])
    process.send_signal(signal.SIGTERM)
    await stream.until(lambda: stream.is_over)
    started_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert await listening.peer.next(listening.peer.released) == "a"
    assert time.monotonic() - started_at < 5


async def test_process_with_a_bad_credentials_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text("- secret1")
    process = _start_worker("127.0.0.1:1", "--credentials", str(path))
    _, errors = await asyncio.to_thread(process.communicate)
    assert process.returncode == 2
    assert "not a mapping" in errors
    assert "secret1" not in errors


def _start_worker(address: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "worker", "--broker", address, "--worker-id", "w9", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _lines_until(process: "subprocess.Popen[str]", wanted: str) -> list[str]:
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip())
        if lines[-1] == wanted:
            return lines
    raise AssertionError(f"never said {wanted!r}: {lines}")
