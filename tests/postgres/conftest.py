"""The verbs and the store without a broker around them: nothing moves unless a test moves it."""

from collections.abc import AsyncIterator

import pytest

from broker.lifecycle import Lifecycle, Signals
from broker.store.session import Session
from tests.contract.tables import Tables


@pytest.fixture
async def lifecycle(database_url: str) -> AsyncIterator[Lifecycle]:
    """The verbs without any timer: no lease is taken or ended unless a test says so."""
    verbs = Lifecycle(database_url, Signals(), lambda: 0.5)
    yield verbs
    await verbs.close()


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[Session]:
    """A session of the store."""
    opened = Session(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def tables(database_url: str) -> Tables:
    """The database of that session."""
    return Tables(database_url)
