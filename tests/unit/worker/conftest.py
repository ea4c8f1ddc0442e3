"""A peer on a loopback port, and the worker's client connected to it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from reprise.v1 import broker_service_pb2_grpc as stubs

from tests.unit.worker.peer import Peer
from worker.client import Client


@dataclass(frozen=True)
class Listening:
    """A peer and the address that it listens on."""

    peer: Peer
    address: str


@pytest.fixture
async def listening() -> AsyncIterator[Listening]:
    server = grpc.aio.server()
    peer = Peer()
    stubs.add_BrokerServiceServicer_to_server(peer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Listening(peer, f"127.0.0.1:{port}")
    await server.stop(None)


@pytest.fixture
def peer(listening: Listening) -> Peer:
    return listening.peer


@pytest.fixture
async def client(listening: Listening) -> AsyncIterator[Client]:
    async with Client(listening.address) as client:
        yield client
