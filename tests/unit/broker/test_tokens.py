"""A lease token names its lease, and nobody makes one but a broker of the same database."""

import pytest

from broker.lifecycle.tokens import LeaseRef, TokenCodec

CODEC = TokenCodec(b"k" * 32)
TOKEN = CODEC.issue(123, 456, in_execution=False)


@pytest.mark.parametrize("in_execution", [False, True])
@pytest.mark.parametrize(("lease_id", "job_id"), [(1, 2), (2**63 - 1, 2**63 - 2), (0, 0)])
def test_a_token_gives_back_the_lease_it_was_issued_for(
    lease_id: int, job_id: int, in_execution: bool
) -> None:
    token = CODEC.issue(lease_id, job_id, in_execution=in_execution)

    assert CODEC.read(token) == LeaseRef(lease_id, job_id, in_execution)
    assert len(token) <= 64


def test_every_broker_with_the_same_key_reads_the_token() -> None:
    assert TokenCodec(b"k" * 32).read(TOKEN) == CODEC.read(TOKEN)


def test_a_broker_of_another_database_does_not_know_the_token() -> None:
    assert TokenCodec(b"K" * 32).read(TOKEN) is None


@pytest.mark.parametrize("position", range(len(TOKEN)))
def test_a_token_changed_in_any_character_was_never_issued(position: int) -> None:
    other = "A" if TOKEN[position] != "A" else "B"

    assert CODEC.read(TOKEN[:position] + other + TOKEN[position + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    ["", "x", TOKEN[:-1], TOKEN + "A", "=" * 36, "+" * 36, "ä" * 36, "\0" * 36, "A" * 36, "A" * 100_000],
)
def test_a_malformed_token_was_never_issued(text: str) -> None:
    assert CODEC.read(text) is None
