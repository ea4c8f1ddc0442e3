"""What all brokers of one database share."""

from broker.store.session import Session

_READ_KEY = "SELECT token_key FROM installation"


async def token_key(session: Session) -> bytes:
    """The key that signs lease tokens. Raises Unavailable."""
    row = await session.row(_READ_KEY)
    assert row is not None
    return bytes(row[0])
