"""How brokers of one database speak to each other, and whether there is anybody to speak to.

NOTIFY takes a lock of the whole server until its commit, so it is never part of another statement, and does not wait for the disk: a hint
that is lost costs nothing but time. A broker is there while its listening connection is. Must not know what a hint says.
"""

from broker.store.session import Session

CHANNEL = "reprise_hint"
# PostgreSQL refuses a payload of 8000 bytes.
MOST_BYTES = 7999

_SAY = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', %b::text)"

# Whether another broker than this one listens.
_ANY_OTHER = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'reprise broker %%' AND application_name <> %b::text
"""


def name_of(broker_id: str) -> str:
    """The application_name of a broker's listening connection."""
    return f"reprise broker {broker_id}"


async def say(session: Session, payload: str) -> None:
    """Says `payload`, at most MOST_BYTES, to every broker of the database, this one included. Raises Unavailable."""
    await session.rows(_SAY, (payload,))


async def is_alone(session: Session, broker_id: str) -> bool:
    """Whether no other broker than this one listens now. Raises Unavailable."""
    row = await session.row(_ANY_OTHER, (name_of(broker_id),))
    assert row is not None
    return bool(row[0] == 0)
