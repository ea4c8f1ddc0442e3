"""What the statements' arrays say is what PostgreSQL reads."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from broker.store.arrays import Float8s, Instants, Int2s, Int4s, Int8s, Texts
from broker.store.session import Session

_LONG_AGO, _FAR_AHEAD = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


@pytest.fixture
async def session(empty_database_url: str) -> AsyncIterator[Session]:
    """A session of the broker on a database with nothing in it."""
    opened = Session(empty_database_url)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("array", "type_name", "values"),
    [
        (Texts, "text", ["a", "", None, "ä€😀", "a", "x" * 100_000, '{"a,b": "\\"}']),
        (Int2s, "int2", [0, -(2**15), 2**15 - 1, None]),
        (Int4s, "int4", [0, -(2**31), 2**31 - 1, None]),
        (Int8s, "int8", [0, -(2**63), 2**63 - 1, None, 7, 7]),
        (Float8s, "float8", [0, 0.1, -1e300, None]),
        (Instants, "timestamptz", [_LONG_AGO, datetime(2000, 1, 1, tzinfo=UTC), None, _FAR_AHEAD]),
    ],
)
async def test_every_value_arrives_as_it_was_given(
    session: Session, array: type, type_name: str, values: list[object]
) -> None:
    row = await session.row(
        f"SELECT %b, pg_typeof(%b)::oid = '{type_name}[]'::regtype", (array(values), array(values))
    )

    assert row == (values, True)


@pytest.mark.parametrize("array", [Texts, Int2s, Int4s, Int8s, Float8s, Instants])
async def test_a_column_without_any_value_is_filled_up_with_nulls(session: Session, array: type) -> None:
    rows = await session.rows("SELECT * FROM unnest(%b, %b)", (Int8s([1, 2]), array([None, None])))

    assert rows == [(1, None), (2, None)]


async def test_one_value_for_all_is_still_a_value_for_each(session: Session) -> None:
    rows = await session.rows("SELECT * FROM unnest(%b)", (Texts(["same"] * 3),))

    assert rows == [("same",)] * 3
