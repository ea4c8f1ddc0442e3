"""The database that faults are judged by."""

import pytest

from tests.contract.tables import Tables


@pytest.fixture
def tables(database_url: str) -> Tables:
    """The tables of this test's database."""
    return Tables(database_url)
