"""The worker's side of the protocol, as transcripts with a peer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as pb

from tests.unit.worker.peer import Peer, Refusal, lease, seconds
from worker.attempt import Executor, seconds_to_run
from worker.client import Client
from worker.executors.python_step import PythonStep
from worker.failure import JobFailed
from worker.job import Job
from worker.runner import Runner, RunnerOptions, WorkerRefused

OPTIONS = RunnerOptions("w1", ["default", "slow"], concurrency=3, lease_seconds=30, drain_seconds=30)


class Scripted:
    """An executor whose steps a test starts and ends."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[Job] = asyncio.Queue()
        self.stopped: asyncio.Queue[Job] = asyncio.Queue()
        self.may_end = asyncio.Event()

    async def execute(self, job: Job) -> Any:
        self.started.put_nowait(job)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.stopped.put_nowait(job)
            raise
        if error := job.input.get("error"):
            raise JobFailed(error, type="scripted")
        return {"attempt": job.attempt}


class Stubborn:
    """Goes on until its script may end, whatever it is told."""

    def __init__(self, script: Scripted) -> None:
        self._script = script

    async def execute(self, job: Job) -> Any:
        while not self._script.may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._script.may_end.wait()


class Running:
    """A runner at work, with its script."""

    def __init__(self, client: Client, options: RunnerOptions) -> None:
        self.script = Scripted()
        executors: dict[str, Executor] = {
            "test": self.script,
            "stubborn": Stubborn(self.script),
            "python": PythonStep({}),
        }
        self.runner = Runner(
            client, executors, options, scrub=lambda text: text.replace("s3cret", "[redacted]")
        )
        self.task = asyncio.create_task(self.runner.run())

    async def reported(self) -> None:
        """Returns when nothing is held any more."""
        async with asyncio.timeout(5):
            while attempts := self.runner._attempts:
                await asyncio.wait(attempts)

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await asyncio.shield(self.task)


@pytest.fixture
async def start(client: Client) -> AsyncIterator[Any]:
    started: list[Running] = []

    def begin(**changes: Any) -> Running:
        running = Running(client, replace(OPTIONS, **changes))
        started.append(running)
        return running

    yield begin
    for running in started:
        running.runner.stop()
        running.runner.stop()
        await asyncio.gather(running.task, return_exceptions=True)


async def test_subscription_names_worker_queues_lease_and_free_slots(start: Any, peer: Peer) -> None:
    start()
    stream = await peer.next(peer.streams)
    await stream.until(lambda: stream.credits == 3)
    assert stream.subscription.worker_id == "w1"
    assert list(stream.subscription.queues) == ["default", "slow"]
    assert stream.subscription.lease_duration == seconds(30)


async def test_delivered_lease_is_acknowledged_run_and_completed(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a", input_json='{"x": 1}', step="load", execution_id=5))
    job = await peer.next(running.script.started)
    await stream.until(lambda: stream.received == ["a"])
    running.script.may_end.set()
    completion = await peer.next(peer.completed)
    assert (job.input, job.step, job.execution_id) == ({"x": 1}, "load", 5)
    assert (completion.lease_token, completion.result_json) == ("a", '{"attempt":1}')


async def test_credits_are_the_free_slots(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    await stream.until(lambda: stream.credits == 3)
    stream.deliver(lease("a"), lease("b"), lease("c"))
    for _ in range(3):
        await peer.next(running.script.started)
    assert stream.credits == 0
    running.script.may_end.set()
    await stream.until(lambda: stream.credits == 3)
    stream.deliver(lease("d"))
    await stream.until(lambda: stream.received == ["a", "b", "c", "d"] and stream.credits == 3)


async def test_a_slot_is_free_while_its_attempt_is_reported_but_no_more_than_twice_as_many_are_held(
    start: Any, peer: Peer
) -> None:
    peer.gate.clear()
    running = start()
    running.script.may_end.set()
    stream = await peer.next(peer.streams)
    await stream.until(lambda: stream.credits == 3)
    stream.deliver(lease("a"), lease("b"), lease("c"))
    await stream.until(lambda: stream.credits == 3)
    stream.deliver(lease("d"), lease("e"), lease("f"))
    for _ in range(6):
        await peer.next(running.script.started)
    while running.runner._steps:  # noqa: ASYNC110 - they end by themselves, within a few turns
        await asyncio.sleep(0)
    assert running.runner._credits == 0
    peer.gate.set()
    await stream.until(lambda: stream.credits == 3)


async def test_failure_is_reported_and_its_decision_logged(
    start: Any, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="worker")
    running = start()
    stream = await peer.next(peer.streams)
    running.script.may_end.set()
    stream.deliver(lease("a", input_json='{"error": "no s3cret here"}'))
    failed = await peer.next(peer.failed)
    await running.reported()
    assert (failed.lease_token, failed.failure.type) == ("a", "scripted")
    assert failed.failure.message == "no [redacted] here"
    assert "retry policy evaluation job_id=7 attempt=1 max_attempts=3 verdict=retry" in caplog.text
    assert "emitted action_retry job_id=7 attempt=1 max_attempts=3 delay_seconds=1.5" in caplog.text
    assert "s3cret" not in caplog.text


async def test_kind_without_executor_fails_by_name(start: Any, peer: Peer) -> None:
    start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a", kind="fax"))
    failed = await peer.next(peer.failed)
    assert failed.failure.type == "unknown_kind"
    assert "no executor or handler for kind 'fax', only for " in failed.failure.message


@pytest.mark.parametrize("text", ["nonsense", "[1]", "[" * 100_000])
async def test_input_that_is_no_object_fails_one_attempt_not_the_worker(
    start: Any, peer: Peer, text: str
) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a", input_json=text), lease("b"))
    assert (await peer.next(peer.failed)).failure.type == "input_invalid"
    await peer.next(running.script.started)


async def test_result_without_an_asserted_key_fails_with_the_result(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    running.script.may_end.set()
    stream.deliver(lease("a", input_json='{"assert": {"returns": ["attempt", "total"]}}'))
    failure = (await peer.next(peer.failed)).failure
    assert (failure.type, failure.result_json) == ("assertion_failed", '{"attempt":1}')
    assert "total" in failure.message


async def test_result_that_the_broker_refuses_fails_the_attempt(start: Any, peer: Peer) -> None:
    running = start()
    peer.on_complete = pb.LEASE_OUTCOME_INVALID
    stream = await peer.next(peer.streams)
    running.script.may_end.set()
    stream.deliver(lease("a"))
    assert (await peer.next(peer.failed)).failure.type == "result_not_json"


async def test_running_attempt_outlives_its_stream(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    stream.break_off()
    again = await peer.next(peer.streams)
    assert again.subscription.credits == 2
    assert await peer.next(peer.extended) == ["a"]  # asked at once whether it is still held
    running.script.may_end.set()
    assert (await peer.next(peer.completed)).lease_token == "a"
    await again.until(lambda: again.credits == 3)


async def test_worker_waits_for_a_broker_that_is_not_there_yet(start: Any, peer: Peer) -> None:
    start()
    for _ in range(2):
        (await peer.next(peer.streams)).break_off(Refusal(grpc.StatusCode.UNAVAILABLE, asks_again=True))
    stream = await peer.next(peer.streams)
    await stream.until(lambda: stream.credits == 3)


async def test_outage_is_one_warning_until_the_broker_delivers_again(
    start: Any, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="worker")
    running = start()
    for _ in range(3):
        (await peer.next(peer.streams)).break_off(Refusal(grpc.StatusCode.UNAVAILABLE, "database away"))
    (await peer.next(peer.streams)).deliver(lease("a"))
    await running.script.started.get()

    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ['lease stream broke code=UNAVAILABLE error="database away"']
    assert "the broker answers again worker_id=w1" in caplog.text


async def test_worker_that_the_broker_refuses_ends_with_the_reason(start: Any, peer: Peer) -> None:
    running = start()
    (await peer.next(peer.streams)).break_off(
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "queues[0]: bad name")
    )
    with pytest.raises(WorkerRefused, match="bad name"):
        await running.ended()


async def test_cancelled_attempt_is_stopped_and_failed(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    stream.notify("a", pb.LeaseNotice.KIND_CANCELLED)
    assert (await peer.next(peer.failed)).failure.type == "cancelled"
    assert running.script.stopped.qsize() == 1


async def test_lost_attempt_is_stopped_and_nothing_reported(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    stream.notify("a", pb.LeaseNotice.KIND_LOST)
    await peer.next(running.script.stopped)
    await running.reported()
    assert peer.calls == []


async def test_attempt_whose_step_does_not_stop_is_reported_and_keeps_its_slot(
    start: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.attempt.STOP_SECONDS", 0)
    running = start(concurrency=1)
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a", kind="stubborn"))
    await stream.until(lambda: stream.received == ["a"])
    stream.notify("a", pb.LeaseNotice.KIND_CANCELLED)
    assert (await peer.next(peer.failed)).failure.type == "cancelled"
    assert stream.credits == 0
    running.script.may_end.set()
    await stream.until(lambda: stream.credits == 1)
    assert len(peer.calls) == 1


async def test_attempt_in_which_nothing_failed_is_no_news(
    start: Any, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="worker")
    running = start()
    stream = await peer.next(peer.streams)
    running.script.may_end.set()
    stream.deliver(lease("a"))
    await peer.next(peer.completed)
    await running.reported()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("outcome", "is_failed"), [(pb.LEASE_OUTCOME_CANCELLED, True), (pb.LEASE_OUTCOME_LOST, False)]
)
async def test_heartbeat_brings_the_news_where_no_notice_came(
    start: Any, peer: Peer, outcome: pb.LeaseOutcome.ValueType, is_failed: bool
) -> None:
    running = start(lease_seconds=1)
    peer.on_extend["a"] = outcome
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.stopped)
    await running.reported()
    assert [attempt.failure.type for call in peer.calls for attempt in call.attempts] == [
        "cancelled"
    ] * is_failed


async def test_one_heartbeat_extends_all_leases(start: Any, peer: Peer) -> None:
    running = start(lease_seconds=1)
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"), lease("b"))
    for _ in range(2):
        await peer.next(running.script.started)
    for _ in range(3):  # a whole lease duration
        assert sorted(await peer.next(peer.extended)) == ["a", "b"]


@pytest.mark.parametrize(("lost", "refused"), [("0", "1000"), ("1000", "0")])
async def test_news_of_a_lease_comes_though_the_call_for_other_leases_fails(
    start: Any, peer: Peer, lost: str, refused: str
) -> None:
    running = start(lease_seconds=1, concurrency=1001)  # one more than a call takes
    peer.on_extend[lost] = pb.LEASE_OUTCOME_LOST
    peer.refuses_extend_of = refused
    stream = await peer.next(peer.streams)
    stream.deliver(*(lease(str(number), job_id=number + 1) for number in range(1001)))
    job = await peer.next(running.script.stopped)
    assert job.job_id == int(lost) + 1


async def test_worker_whose_heartbeat_ends_gives_its_leases_back_and_says_why(start: Any, peer: Peer) -> None:
    running = start(lease_seconds=1)
    peer.is_extend_answered_short = True
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    assert await peer.next(peer.released) == "a"
    with pytest.raises(ValueError, match="zip"):
        await running.ended()


async def test_step_that_burns_the_cpu_never_looks_dead(start: Any, peer: Peer) -> None:
    start(lease_seconds=1)
    stream = await peer.next(peer.streams)
    spin = '{"code": "def main():\\n    while True: pass"}'
    stream.deliver(lease("a", kind="python", input_json=spin))
    for _ in range(3):
        assert await peer.next(peer.extended) == ["a"]


@pytest.mark.parametrize("kind", ["test", "python"])
async def test_attempt_ends_at_its_timeout(start: Any, peer: Peer, kind: str) -> None:
    start()
    stream = await peer.next(peer.streams)
    code = "{\"code\": \"import re\\ndef main():\\n    print('on it')\\n    re.match('(a+)+$', 'a' * 60 + 'b')\"}"
    stream.deliver(lease("a", kind=kind, input_json=code, attempt_timeout=seconds(1)))
    failure = (await peer.next(peer.failed)).failure
    assert (failure.type, failure.message) == ("timeout", "attempt took longer than 1 s")
    assert ("on it" in failure.stack_trace) == (kind == "python")
    await stream.until(lambda: stream.credits == 3)


@pytest.mark.parametrize(("timeout", "longest"), [(1, 0.9), (2.5, 2.25), (600, 599.75)])
def test_step_is_stopped_early_enough_to_report_its_timeout_first(timeout: float, longest: float) -> None:
    assert seconds_to_run(timeout) == longest


async def test_timeout_that_the_broker_has_decided_first_is_no_lost_lease(
    start: Any, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="worker")
    peer.is_fail_lost = True
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a", attempt_timeout=seconds(0.01)))
    await peer.next(peer.failed)
    await running.reported()
    assert "attempt timed out: the broker has decided it already" in caplog.text
    assert "lease was lost" not in caplog.text


async def test_draining_worker_takes_no_more_and_finishes_what_runs(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    running.runner.stop()
    await stream.until(lambda: stream.is_over)
    assert not running.task.done()
    running.script.may_end.set()
    await running.ended()
    assert (await peer.next(peer.completed)).lease_token == "a"


async def test_stream_stays_open_until_the_broker_knows_what_is_held(start: Any, peer: Peer) -> None:
    running = start()
    peer.extend_gate.clear()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    running.runner.stop()
    assert await peer.next(peer.extended) == ["a"]
    assert not stream.is_over
    peer.extend_gate.set()
    await stream.until(lambda: stream.is_over)


async def test_lease_that_comes_while_draining_is_neither_started_nor_received(
    start: Any, peer: Peer
) -> None:
    running = start()
    peer.extend_gate.clear()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    running.runner.stop()
    await peer.next(peer.extended)
    stream.deliver(lease("b"))
    stream.notify("a", pb.LeaseNotice.KIND_CANCELLED)  # comes after "b"
    await peer.next(peer.failed)
    peer.extend_gate.set()
    await running.ended()
    assert running.script.started.empty()
    assert stream.received == ["a"]
    assert stream.credits == 1  # of three: none was given for the slot that "a" left


async def test_what_does_not_finish_in_time_is_killed_and_released(start: Any, peer: Peer) -> None:
    running = start(drain_seconds=0)
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"), lease("b"))
    for _ in range(2):
        await peer.next(running.script.started)
    running.runner.stop()
    await running.ended()
    assert sorted([await peer.next(peer.released), await peer.next(peer.released)]) == ["a", "b"]
    assert running.script.stopped.qsize() == 2


async def test_second_stop_releases_at_once(start: Any, peer: Peer) -> None:
    running = start()
    stream = await peer.next(peer.streams)
    stream.deliver(lease("a"))
    await peer.next(running.script.started)
    running.runner.stop()
    await stream.until(lambda: stream.is_over)
    running.runner.stop()
    await running.ended()
    assert await peer.next(peer.released) == "a"


async def test_idle_worker_stops_at_once(start: Any, peer: Peer) -> None:
    running = start()
    await peer.next(peer.streams)
    running.runner.stop()
    await running.ended()
