"""Programs in any language find their way: health, reflection, and a generic client that knows nothing of us."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from reprise.v1 import broker_service_pb2, playbook_service_pb2, policy_service_pb2, queue_service_pb2

from broker.config import BrokerConfig
from broker.server import running
from tests.contract.client import LOST, Client

SERVICES: list[ServiceDescriptor] = [
    service
    for file in (broker_service_pb2, queue_service_pb2, playbook_service_pb2, policy_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]


@pytest.mark.parametrize("service", ["", *(service.full_name for service in SERVICES)])
async def test_the_broker_and_each_service_is_healthy(channel: grpc.aio.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)

    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_rush_of_calls_is_answered_to_the_last_one(client: Client) -> None:
    calls = 1_500  # of those that wait, gRPC resets some from 1 000 on where it is not told otherwise

    assert await asyncio.gather(*(client.complete("unknown") for _ in range(calls))) == [LOST] * calls


async def test_a_broker_that_shuts_down_says_so_to_whoever_watches(database_url: str) -> None:
    broker = running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=1))
    async with grpc.aio.insecure_channel(await broker.__aenter__()) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

        leaving = asyncio.create_task(broker.__aexit__(None, None, None))

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await leaving


async def test_reflection_lists_every_service(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()

    names = {service.name for service in answer.list_services_response.service}
    assert names == {
        *(service.full_name for service in SERVICES),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_describes_every_call_as_the_contract_does(broker_address: str) -> None:
    def described() -> dict[str, list[str]]:
        with grpc.insecure_channel(broker_address) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            return {
                service.full_name: [
                    method.name for method in pool.FindServiceByName(service.full_name).methods
                ]
                for service in SERVICES
            }

    found = await asyncio.to_thread(described)

    assert found == {service.full_name: [method.name for method in service.methods] for service in SERVICES}


async def test_a_generic_client_enqueues_leases_fails_and_completes(broker_address: str) -> None:
    async def call(method: str, request: dict[str, Any]) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("buf"), "curl", "--http2-prior-knowledge", "--protocol", "grpc",
            "--data", json.dumps(request), f"http://{broker_address}/reprise.v1.BrokerService/{method}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        answer: dict[str, Any] = json.loads(output)
        return answer

    enqueued = await call(
        "Enqueue",
        {
            "jobs": [
                {"kind": "mail", "input": {"to": "you"}, "retry": {"maxAttempts": 2, "initialDelay": "0s"}}
            ]
        },
    )
    first = (await call("Lease", {"credits": 1, "wait": "5s"}))["leases"][0]
    failed = await call(
        "Fail", {"attempts": [{"leaseToken": first["leaseToken"], "failure": {"message": "boom"}}]}
    )
    second = (await call("Lease", {"credits": 1, "wait": "5s"}))["leases"][0]
    completed = await call(
        "Complete", {"completions": [{"leaseToken": second["leaseToken"], "result": {"ok": True}}]}
    )

    assert enqueued["jobs"][0]["created"] is True
    assert first["jobId"] == second["jobId"] == enqueued["jobs"][0]["jobId"]
    assert (first["inputJson"], first["attempt"], second["attempt"]) == ('{"to":"you"}', 1, 2)
    assert failed["results"][0]["decision"]["verdict"] == "VERDICT_RETRY"
    assert second["lastFailure"]["message"] == "boom"
    assert completed["results"][0]["outcome"] == "LEASE_OUTCOME_OK"
