"""What a job and a lease are inside the broker: values that pass between the verbs and the store.

Knows neither protobuf nor SQL. Durations are seconds as floats here, as PostgreSQL computes with them; JSON is text.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple


class NewJob(NamedTuple):
    """A job to be put in, checked already. `input` is a JSON object as text that PostgreSQL can hold."""

    queue: str
    kind: str
    input: str
    priority: int = 0
    policy: str | None = None  # canonical JSON of its RetryPolicy; None: one attempt
    max_attempts: int = 1
    idempotency_key: str | None = None
    traceparent: str | None = None
    delay_seconds: float | None = None  # None and no run_at: at once
    run_at: datetime | None = None
    dependency: str | None = None
    attempt_timeout_seconds: float | None = None
    labels: str | None = None  # a JSON object of strings
    execution_id: int | None = None
    step: str | None = None


class Enqueued(NamedTuple):
    """Where a new job is to be found, and whether this call made it."""

    job_id: int
    created: bool


class Grant(NamedTuple):
    """One lease as it is granted: the row of the lease statement, in its order.

    From `kind` on stands what most leases of a statement have in common; the fields of `Terms` stand together.
    """

    stream: int
    lease_id: int
    job_id: int
    seq: int
    input: str
    traceparent: str | None
    checkpoint: str | None
    last_failure: str | None  # detail of the last action_error
    priority: int
    queue: str
    policy_id: int | None
    kind: str
    attempt: int
    max_attempts: int
    expires_at: datetime
    execution_id: int | None
    step: str | None
    attempt_timeout_seconds: float | None
    dependency: str | None
    labels: str | None


OTHER_BYTES_OF_LEASE = 1024
"""Of a lease, whatever it carries: its names, numbers and instants, as an object in memory or as fields of a message."""


def bytes_of(grants: Collection[Grant]) -> int:
    """About how many bytes leases take, with what they carry: texts by their characters."""
    carried = sum(
        len(grant.input) + len(grant.last_failure or "") + len(grant.checkpoint or "") for grant in grants
    )
    return carried + OTHER_BYTES_OF_LEASE * len(grants)


class Taker(NamedTuple):
    """A stream that takes leases, by a number that stands for it in the slots."""

    stream: int
    worker_id: str
    lease_seconds: float


class Terms(NamedTuple):
    """On which terms a job is tried: what a decision needs to know of a lease beside its time."""

    queue: str
    policy_id: int | None
    kind: str
    attempt: int
    max_attempts: int


class Delivery(NamedTuple):
    """A granted lease without what it carries: as much as giving it back, a word about it, or a decision on it takes."""

    lease_id: int
    job_id: int
    execution_id: int | None
    expires_at: datetime
    terms: Terms


_FIRST_OF_TERMS = Grant._fields.index(Terms._fields[0])
_END_OF_TERMS = _FIRST_OF_TERMS + len(Terms._fields)


def deliveries_of(grants: Iterable[Grant]) -> list[Delivery]:
    """The same without what they carry; terms that neighbours have in common are kept once."""
    terms: Terms | None = None
    deliveries = []
    for grant in grants:
        own = grant[_FIRST_OF_TERMS:_END_OF_TERMS]
        if terms is None or own != terms:
            terms = Terms._make(own)
        deliveries.append(Delivery(grant.lease_id, grant.job_id, grant.execution_id, grant.expires_at, terms))
    return deliveries


class Outcome(IntEnum):
    """What became of one item of Extend, Complete, Fail or Release; the numbers of `LeaseOutcome` in the contract."""

    OK = 1
    LOST = 2
    CANCELLED = 3
    INVALID = 4


class Arrival(NamedTuple):
    """Jobs have become available in (queue, priority): how many, None where that cannot be told; `seq` is their lowest."""

    queue: str
    priority: int
    seq: int
    jobs: int | None = 1
