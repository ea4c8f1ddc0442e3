"""Calls to the broker: what is repeated, what is shared, what enqueue sends."""

import asyncio
import time
from datetime import timedelta

import grpc
import pytest
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import retry_pb2

from tests.unit.worker.conftest import Listening
from tests.unit.worker.peer import Peer, Refusal, seconds
from worker.client import Client, enqueue
from worker.errors import BrokerUnavailable, EnqueueRefused, KeyTaken
from worker.failure import Failure
from worker.lease import Outcome


def in_a_while() -> float:
    return time.monotonic() + 30


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(grpc.StatusCode.UNAVAILABLE),
        Refusal(grpc.StatusCode.UNAVAILABLE, asks_again=True),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, asks_again=True),
        Refusal(grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
    ids=str,
)
async def test_report_is_repeated_until_answered(client: Client, peer: Peer, refusal: Refusal) -> None:
    peer.refusals.extend([refusal, refusal])
    answer = await client.complete("token", "1", in_a_while)
    assert answer.outcome is Outcome.OK
    assert len(peer.calls) == 3


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_refusal_that_does_not_ask_for_it_is_not_repeated(
    client: Client, peer: Peer, code: grpc.StatusCode
) -> None:
    peer.refusals.append(Refusal(code))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.fail("token", Failure("no", "ValueError"), in_a_while)
    assert caught.value.code() is code
    assert len(peer.calls) == 1


async def test_report_of_a_lease_that_has_surely_ended_is_given_up(client: Client, peer: Peer) -> None:
    peer.refusals.extend([Refusal(grpc.StatusCode.UNAVAILABLE)] * 5)
    with pytest.raises(grpc.aio.AioRpcError):
        await client.complete("token", "1", time.monotonic)
    assert len(peer.calls) == 1


async def test_results_that_become_ready_during_a_call_share_the_next(client: Client, peer: Peer) -> None:
    peer.gate.clear()
    reports = [asyncio.create_task(client.complete("first", "1", in_a_while))]
    async with asyncio.timeout(5):
        while not peer.calls:
            await asyncio.wait(reports, timeout=0.01)
    reports += [
        asyncio.create_task(client.complete(f"token {number}", "1", in_a_while)) for number in range(20)
    ]
    await asyncio.wait(reports, timeout=0)
    peer.gate.set()
    await asyncio.gather(*reports)
    assert [len(call.completions) for call in peer.calls] == [1, 20]


async def test_decision_of_a_failure_comes_back(client: Client) -> None:
    answer = await client.fail("token", Failure("no", "ValueError"), in_a_while)
    assert answer.decision
    assert answer.decision.is_retry
    assert (answer.decision.reason, answer.decision.delay_seconds) == ("any_failure", 1.5)


async def test_failure_carries_every_fact(client: Client, peer: Peer) -> None:
    failure = Failure("busy \ud800", "http.503", 503, timedelta(seconds=2), '{"a":1}', "trace")
    await client.fail("token", failure, in_a_while)
    sent = (await peer.next(peer.failed)).failure
    assert (sent.message, sent.type, sent.status_code) == ("busy ?", "http.503", 503)
    assert (sent.retry_after, sent.result_json, sent.stack_trace) == (seconds(2), '{"a":1}', "trace")


async def test_extend_names_every_lease_and_says_when_it_ends(client: Client, peer: Peer) -> None:
    peer.on_extend["b"] = pb.LEASE_OUTCOME_LOST
    before = time.monotonic()
    ok, lost = await client.extend(["a", "b"], 30)
    assert ok.outcome is Outcome.OK
    assert ok.ends_at is not None
    assert before + 30 <= ok.ends_at <= time.monotonic() + 30
    assert (lost.outcome, lost.ends_at) == (Outcome.LOST, None)


@pytest.mark.parametrize(("lease_seconds", "longest"), [(1.5, 0.5), (6, 2), (30, 10), (3600, 10)])
async def test_extend_that_hangs_costs_a_third_of_the_lease_at_most_ten_seconds(
    client: Client, peer: Peer, lease_seconds: float, longest: float
) -> None:
    await client.extend(["a"], lease_seconds)
    assert 0 < peer.extend_seconds[0] < longest + 0.1


async def test_enqueue_gives_a_key_that_its_own_repeats_keep(client: Client, peer: Peer) -> None:
    peer.refusals.append(Refusal(grpc.StatusCode.UNAVAILABLE))
    enqueued = await client.enqueue("send-email", {"to": "a@example.org"})
    assert (enqueued.job_id, enqueued.created) == (41, True)
    first, second = (call.jobs[0].idempotency_key for call in peer.calls)
    assert first == second
    assert len(first) == 36


async def test_enqueue_sends_every_field(client: Client, peer: Peer) -> None:
    await client.enqueue(
        "charge",
        {"cents": 2**60},
        queue="billing",
        retry={"max_attempts": 5, "initial_delay": 0.5, "jitter": True, "retry_when": "{{ attempt < 3 }}"},
        priority=3,
        delay_seconds=60,
        idempotency_key="order-1",
        dependency="payments",
        attempt_timeout_seconds=2.5,
        labels={"team": "a"},
    )
    job = peer.calls[0].jobs[0]
    assert (job.kind, job.queue, job.input_json) == ("charge", "billing", '{"cents":1152921504606846976}')
    assert (job.priority, job.idempotency_key, job.dependency) == (3, "order-1", "payments")
    assert (job.delay, job.attempt_timeout, dict(job.labels)) == (seconds(60), seconds(2.5), {"team": "a"})
    assert job.retry == retry_pb2.RetryPolicy(
        max_attempts=5,
        initial_delay=seconds(0.5),
        jitter=retry_pb2.JITTER_FULL,
        retry_when="{{ attempt < 3 }}",
    )


async def test_refused_job_names_every_bad_field(client: Client, peer: Peer) -> None:
    bad = (("jobs[0].kind", "is missing"), ("jobs[0].queue", "is too long"))
    peer.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, bad_fields=bad))

    with pytest.raises(
        EnqueueRefused, match=r"^jobs.0..kind: is missing; jobs.0..queue: is too long$"
    ) as refused:
        await client.enqueue("", {})

    assert refused.value.faults == dict(bad)


async def test_what_cannot_be_sent_is_refused_like_what_the_broker_refuses(
    client: Client, peer: Peer
) -> None:
    with pytest.raises(EnqueueRefused) as refused:
        await client.enqueue("charge", [1], retry={"jitter": "ful", "max_attempts": "3"})  # type: ignore[arg-type]

    assert list(refused.value.faults) == [
        "jobs[0].input",
        "jobs[0].retry.jitter",
        "jobs[0].retry.max_attempts",
    ]
    assert isinstance(refused.value, ValueError)  # as all that can be wrong with `retry` once was
    assert peer.calls == []


async def test_other_job_under_the_same_key_is_told_apart(client: Client, peer: Peer) -> None:
    peer.refusals.append(Refusal(grpc.StatusCode.ALREADY_EXISTS))
    with pytest.raises(KeyTaken, match="refused"):
        await client.enqueue("charge", {}, idempotency_key="order-1")


async def test_enqueue_gives_up_after_its_timeout(client: Client, peer: Peer) -> None:
    peer.refusals.append(Refusal(grpc.StatusCode.UNAVAILABLE, "database away", asks_again=True))
    with pytest.raises(BrokerUnavailable, match="within 0 s: "):
        await client.enqueue("charge", {}, timeout_seconds=0)


async def test_program_without_a_loop_can_enqueue(listening: Listening) -> None:
    enqueued = await asyncio.to_thread(
        enqueue, "charge", {"cents": 1}, broker=listening.address, queue="billing"
    )
    assert enqueued.job_id == 41
    assert listening.peer.calls[0].jobs[0].queue == "billing"
