"""Every bad field of every job is named by its path, with a reason that programs may branch on."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import retry_pb2

from tests.contract.client import Client, Refusal, new_job
from tests.contract.tables import Tables


def struct(number: float) -> Struct:
    return Struct(fields={"n": Value(number_value=number)})


def policy(**fields: Any) -> dict[str, retry_pb2.RetryPolicy]:
    return {"retry": retry_pb2.RetryPolicy(**fields)}


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"queue": "no spaces"}, "queue"),
    ({"queue": "ä"}, "queue"),
    ({"queue": "a" * 129}, "queue"),
    ({"queue": "q\n"}, "queue"),
    ({"kind": ""}, "kind"),
    ({"kind": "a/b"}, "kind"),
    ({"kind": "k\0"}, "kind"),
    ({"priority": 101}, "priority"),
    ({"priority": -101}, "priority"),
    ({"dependency": "a b"}, "dependency"),
    ({"traceparent": "00-zz"}, "traceparent"),
    ({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-\0"}, "traceparent"),
    ({"idempotency_key": "k" * 201}, "idempotency_key"),
    ({"idempotency_key": "a\0b"}, "idempotency_key"),
    ({"labels": {str(number): "" for number in range(17)}}, "labels"),
    ({"labels": {"": "v"}}, "labels"),
    ({"labels": {"k" * 64: "v"}}, "labels"),
    ({"labels": {"k": "v" * 64}}, "labels"),
    ({"labels": {"k": "\0"}}, "labels"),
    ({"delay": Duration(seconds=-1)}, "delay"),
    ({"delay": Duration(nanos=-1000)}, "delay"),
    ({"delay": Duration(seconds=1, nanos=-5)}, "delay"),
    ({"delay": Duration(seconds=3651 * 86_400)}, "delay"),
    ({"run_at": Timestamp(seconds=2**60)}, "run_at"),
    ({"run_at": Timestamp(nanos=-1)}, "run_at"),
    ({"attempt_timeout": Duration()}, "attempt_timeout"),
    ({"attempt_timeout": Duration(seconds=-5)}, "attempt_timeout"),
    ({"input": struct(float("nan"))}, "input"),
    ({"input": struct(float("inf"))}, "input"),
    ({"input": struct(2.0**53)}, "input"),
    ({"input": struct(-1e300)}, "input"),
    ({"input": Struct(fields={"\0": Value(bool_value=True)})}, "input"),
    ({"input": Struct(fields={"s": Value(string_value="a\0")})}, "input"),
    ({"input_json": ""}, "input_json"),
    ({"input_json": "{"}, "input_json"),
    ({"input_json": "[]"}, "input_json"),
    ({"input_json": "null"}, "input_json"),
    ({"input_json": '{"a": "\\u0000"}'}, "input_json"),
    ({"input_json": '{"a": "\\ud800"}'}, "input_json"),
    ({"input_json": '{"a": NaN}'}, "input_json"),
    ({"input_json": '{"a": -Infinity}'}, "input_json"),
    ({"input_json": '{"a": 1, "a": 1}'}, "input_json"),
    ({"input_json": '{"a": 1e999999}'}, "input_json"),
    ({"input_json": '{"a":' + "[" * 300 + "]" * 300 + "}"}, "input_json"),
    ({"input_json": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"}, "input_json"),
    (policy(max_attempts=0), "retry.max_attempts"),
    (policy(max_attempts=1001), "retry.max_attempts"),
    (policy(initial_delay=Duration(seconds=-1)), "retry.initial_delay"),
    (policy(initial_delay=Duration(seconds=31 * 86_400)), "retry.initial_delay"),
    (policy(max_delay=Duration(seconds=31 * 86_400)), "retry.max_delay"),
    (policy(backoff_multiplier=0.99), "retry.backoff_multiplier"),
    (policy(backoff_multiplier=100.5), "retry.backoff_multiplier"),
    (policy(backoff_multiplier=float("nan")), "retry.backoff_multiplier"),
    (policy(jitter=99), "retry.jitter"),
    (policy(retry_when="{{ eror != None }}"), "retry.retry_when"),
    (policy(retry_when="error != None"), "retry.retry_when"),
    (policy(stop_when="{{ attempt > }}"), "retry.stop_when"),
    (policy(stop_when="{{ ''.join(['a'] * 9) }}"), "retry.stop_when"),
]  # fmt: skip

NOT_YET: list[tuple[dict[str, Any], str]] = [
    ({"retry_policy": "gentle"}, "retry_policy"),
    (policy(delays=[Duration(seconds=1)]), "retry.delays"),
    (policy(deadline=Duration(seconds=1)), "retry.deadline"),
    (policy(rules=[retry_pb2.RetryRule(when="{{ true }}")]), "retry.rules"),
    (policy(max_crashes=2), "retry.max_crashes"),
    (policy(honor_retry_after=False), "retry.honor_retry_after"),
]


def job(fields: dict[str, Any]) -> Any:
    durations = {name: fields[name] for name in ("delay", "attempt_timeout") if name in fields}
    message = new_job(**{name: value for name, value in fields.items() if name not in durations})
    for name, duration in durations.items():
        getattr(message, name).CopyFrom(duration)
    return message


async def refused(client: Client, *jobs: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        await client.enqueue_all(*jobs)
    return Refusal(error.value)


async def test_every_bad_field_is_named_by_its_path(client: Client, tables: Tables) -> None:
    wrong: dict[str, object] = {}
    for fields, path in INVALID:
        try:
            await client.enqueue_all(new_job(), job(fields))
        except grpc.RpcError as error:
            refusal = Refusal(error)
            named = {field: reason for field, (reason, _) in refusal.violations.items()}
            if (refusal.code, named) != ("INVALID_ARGUMENT", {f"jobs[1].{path}": "INVALID"}):
                wrong[str(fields)[:80]] = (refusal.code, refusal.violations)
        else:
            wrong[str(fields)[:80]] = "taken"

    assert wrong == {}
    assert await tables.value("SELECT count(*) FROM noetl.job") == 0


async def test_every_field_whose_turn_has_not_come_is_refused_by_name(client: Client) -> None:
    for fields, path in NOT_YET:
        refusal = await refused(client, job(fields))

        assert (refusal.code, refusal.domain, refusal.reason) == (
            "INVALID_ARGUMENT",
            "reprise",
            "NOT_SUPPORTED_YET",
        )
        assert refusal.violations[f"jobs[0].{path}"][0] == "NOT_SUPPORTED_YET"


async def test_all_bad_fields_of_all_jobs_are_named_at_once(client: Client) -> None:
    refusal = await refused(
        client, job({"queue": "?", "priority": 999}), new_job(), job({"kind": "", **policy(max_attempts=0)})
    )

    assert refusal.fields == [
        "jobs[0].queue",
        "jobs[0].priority",
        "jobs[2].kind",
        "jobs[2].retry.max_attempts",
    ]


async def test_where_violations_are_too_many_for_a_status_the_rest_is_counted(client: Client) -> None:
    refusal = await refused(client, *(job({"queue": "?" * 1000, "kind": "?"}) for _ in range(1000)))

    assert refusal.fields[0] == "jobs[0].queue"
    ((reason, text),) = [refusal.violations[""]]
    assert reason == "MORE"
    assert f"and {2000 - len(refusal.fields) + 1} more" in text


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_call_has_1_to_1000_jobs(client: Client, count: int) -> None:
    refusal = await refused(client, *(new_job() for _ in range(count)))

    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["jobs"])


async def test_a_condition_is_refused_with_its_place(client: Client) -> None:
    refusal = await refused(client, job(policy(retry_when="{{ error !=\n  nonsense }}")))

    assert "line 2, column 3" in refusal.violations["jobs[0].retry.retry_when"][1]


async def test_an_integer_that_a_double_cannot_hold_is_refused_with_the_field_to_use(client: Client) -> None:
    refusal = await refused(client, job({"input": struct(float(2**53 + 1))}))

    assert "input_json" in refusal.violations["jobs[0].input"][1]


async def test_an_input_too_large_is_refused_by_its_path(client: Client) -> None:
    fits = '{"a":"' + "x" * (1024 * 1024 - 8) + '"}'
    assert await client.enqueue(input_json=fits) > 0

    refusal = await refused(client, new_job(input_json=fits[:-2] + 'x"}'))

    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["jobs[0].input_json"])
    assert refusal.retry_after is None


async def test_a_bad_call_fails_no_other_that_shares_its_statement(client: Client, tables: Tables) -> None:
    good = [client.enqueue_all(new_job(input_json=f'{{"n": {number}}}')) for number in range(40)]
    bad = [refused(client, new_job(), job(fields)) for fields, _ in INVALID]

    await asyncio.gather(*good, *bad)

    assert await tables.value("SELECT count(*) FROM noetl.job") == 40
