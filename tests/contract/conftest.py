"""A broker with one client, and its tables."""

import grpc
import pytest

from tests.contract.client import Client
from tests.contract.tables import Tables


@pytest.fixture
def client(channel: grpc.aio.Channel) -> Client:
    """A client of the broker in this process."""
    return Client(channel)


@pytest.fixture
def tables(database_url: str) -> Tables:
    """The database of that broker."""
    return Tables(database_url)
