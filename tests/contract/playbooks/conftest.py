"""What runs playbooks: a client of the catalog, a starter of executions, a second broker on the same database."""

from collections.abc import AsyncIterator

import grpc
import pytest

from broker.config import BrokerConfig
from broker.server import running
from tests.contract.client import Client
from tests.contract.playbooks.catalog import PlaybookClient
from tests.contract.playbooks.run import Starter
from tests.contract.tables import Tables


@pytest.fixture
def playbooks(channel: grpc.aio.Channel) -> PlaybookClient:
    """A client of the broker's playbooks."""
    return PlaybookClient(channel)


@pytest.fixture
def start(playbooks: PlaybookClient, client: Client, tables: Tables) -> Starter:
    """Registers and starts a playbook: `await start(TEXT, key=value)`."""
    return Starter(playbooks, client, tables)


@pytest.fixture
async def second_channel(broker_address: str, database_url: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to another broker on the database of the first."""
    async with (
        running(BrokerConfig(database_url, "127.0.0.1:0", grace_seconds=0.2)) as address,
        grpc.aio.insecure_channel(address) as opened,
    ):
        yield opened
