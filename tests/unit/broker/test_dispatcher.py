"""What leases weigh bounds what one stream and one statement may have of them, whatever they carry."""

from collections.abc import Sequence

import pytest

from broker.dispatcher import Dispatcher, LeaseStream
from broker.job import Delivery, Grant
from broker.lifecycle import Signals
from tests.unit.broker.test_holdings import grant

MIB = 1024 * 1024
TINY = grant(1)._replace(input="{}", last_failure=None, checkpoint=None)


@pytest.fixture
def dispatcher() -> Dispatcher:
    """One that never reaches a database."""

    async def give_back(leases: Sequence[Delivery]) -> None:
        raise AssertionError

    return Dispatcher("postgresql://127.0.0.1:1/nowhere", Signals(), give_back)


def delivered(dispatcher: Dispatcher, leases: Sequence[Grant]) -> LeaseStream:
    """A stream to which these leases were given, and whose client reads nothing."""
    stream = dispatcher.subscribe("worker", ["q"], 30.0)
    dispatcher.add_credits(stream, len(leases))
    stream.reserve(len(leases))
    dispatcher.take([stream.number] * len(leases), [lease._replace(stream=stream.number) for lease in leases])
    return stream


@pytest.mark.parametrize(
    ("lease", "most"),
    [
        (TINY._replace(input="x" * MIB), 7),
        (TINY._replace(last_failure="x" * MIB), 7),
        (TINY._replace(checkpoint="x" * MIB), 7),
        (TINY, 8 * 1024),
    ],
    ids=["inputs", "last failures", "checkpoints", "nothing but themselves"],
)
async def test_a_client_that_does_not_read_gets_eight_mebibytes_of_leases(
    dispatcher: Dispatcher, lease: Grant, most: int
) -> None:
    assert not delivered(dispatcher, [lease] * (most * 9 // 10)).is_full
    assert delivered(dispatcher, [lease] * (most + 1)).is_full


async def test_once_all_was_taken_to_be_sent_there_may_be_more(dispatcher: Dispatcher) -> None:
    stream = delivered(dispatcher, [TINY] * 10_000)
    stream.outbox = stream.outbox[-100:]

    dispatcher.taken(stream)

    assert 0 < stream.unsent_bytes < MIB
