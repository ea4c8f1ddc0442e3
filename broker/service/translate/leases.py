"""Leases as they are delivered."""

import json
from collections.abc import Iterable
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import broker_service_pb2 as pb
from reprise.v1 import job_pb2

from broker.ids import EPOCH, IDS_PER_MILLISECOND
from broker.job import OTHER_BYTES_OF_LEASE, Delivery, Grant
from broker.lifecycle.failure_events import without_elapsed
from broker.lifecycle.tokens import TokenCodec
from broker.service.translate.failures import recorded_failure_message
from broker.service.translate.instants import write_timestamp

_ID_EPOCH_MILLISECONDS = int(EPOCH.timestamp() * 1000)
_FIRST_COMMON = Grant._fields.index("kind")
# A message of leases is closed at this size; with the largest possible lease on top it stays below the 3 MiB that the contract promises.
_MESSAGE_BYTES = 512 * 1024
_MESSAGE_LEASES = 500
# What many leases have, of whatever stream.
_REMEMBERED_QUEUES = 16_384
_REMEMBERED_INSTANTS = 256
# Last failures in ASCII, with their fields 5 MB at most.
_REMEMBERED_FAILURES = 1024
_REMEMBERED_CHARACTERS = 2048
# No character takes more in UTF-8.
_BYTES_OF_A_CHARACTER = 4


def token_of(codec: TokenCodec, lease: Grant | Delivery) -> str:
    """The token that names a granted lease."""
    return codec.issue(lease.lease_id, lease.job_id, in_execution=lease.execution_id is not None)


def most_bytes(grant: Grant) -> int:
    """What the message of a lease takes at most."""
    size = OTHER_BYTES_OF_LEASE + _most_bytes_of(grant.input)
    for text in (grant.last_failure, grant.checkpoint, grant.labels):
        if text is not None:
            size += _most_bytes_of(text)
    return size


def _most_bytes_of(text: str) -> int:
    return len(text) if text.isascii() else _BYTES_OF_A_CHARACTER * len(text)


class LeaseWriter:
    """Writes leases into responses of bounded size, all that the worker needs in each.

    What leases of one statement have in common is serialized once and read into each, which takes half of what it takes to copy it
    from a message (measured 2026-11).
    """

    def __init__(self, codec: TokenCodec, lease_seconds: float) -> None:
        self._codec = codec
        self._lease_seconds = lease_seconds  # what the stream asked for
        self._common: tuple[object, ...] = ()
        self._common_fields = b""

    def responses(self, grants: Iterable[Grant]) -> list[pb.LeaseResponse]:
        """The leases in order, in as few messages as their bounds allow."""
        responses: list[pb.LeaseResponse] = []
        count, size = _MESSAGE_LEASES, 0
        for grant in grants:
            if size >= _MESSAGE_BYTES or count >= _MESSAGE_LEASES:
                responses.append(pb.LeaseResponse())
                add, count, size = responses[-1].leases.add, 0, 0
            self._write(grant, add())
            count += 1
            size += most_bytes(grant)
        return responses

    def _write(self, grant: Grant, lease: job_pb2.Lease) -> None:
        common = grant[_FIRST_COMMON:]
        if common != self._common:
            self._common_fields = self._common_to(grant).SerializeToString()
            self._common = common
        fields = (
            self._common_fields
            + _queue_field(grant.queue)
            + _created_field(grant.job_id // IDS_PER_MILLISECOND)
        )
        if (failure := grant.last_failure) is not None:
            fields += _failure_field(failure)
        lease.MergeFromString(fields)
        lease.lease_token = token_of(self._codec, grant)
        lease.job_id = grant.job_id
        lease.input_json = grant.input
        if grant.traceparent is not None:
            lease.traceparent = grant.traceparent
        if grant.checkpoint is not None:
            lease.checkpoint_json = grant.checkpoint

    def _common_to(self, grant: Grant) -> job_pb2.Lease:
        """A lease with nothing but what others of its statement have as well."""
        lease = job_pb2.Lease(kind=grant.kind, attempt=grant.attempt, max_attempts=grant.max_attempts)
        write_timestamp(lease.lease_expires_at, grant.expires_at)
        timeout = grant.attempt_timeout_seconds
        _write_duration(
            lease.lease_duration,
            self._lease_seconds if timeout is None else min(self._lease_seconds, timeout),
        )
        if grant.execution_id is not None:
            lease.execution_id = grant.execution_id
            lease.step = grant.step or ""
        if timeout is not None:
            _write_duration(lease.attempt_timeout, timeout)
        if grant.dependency is not None:
            lease.dependency = grant.dependency
        if grant.labels is not None:
            lease.labels.update(json.loads(grant.labels))
        return lease


def _write_duration(message: Duration, seconds: float) -> None:
    whole = int(seconds)
    message.seconds = whole
    message.nanos = int((seconds - whole) * 1_000_000) * 1000


@lru_cache(maxsize=_REMEMBERED_QUEUES)
def _queue_field(queue: str) -> bytes:
    """The serialized queue of a lease."""
    return job_pb2.Lease(queue=queue).SerializeToString()


@lru_cache(maxsize=_REMEMBERED_INSTANTS)
def _created_field(milliseconds_of_id: int) -> bytes:
    """The serialized instant of a job's id."""
    seconds, milliseconds = divmod(milliseconds_of_id + _ID_EPOCH_MILLISECONDS, 1000)
    created_at = Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000)
    return job_pb2.Lease(created_at=created_at).SerializeToString()


def _failure_field(detail: str) -> bytes:
    """The serialized last failure of a lease, of the detail of its event."""
    if len(detail) > _REMEMBERED_CHARACTERS or not detail.isascii():
        return _failure_field_of(detail)
    return _remembered_failure_field(without_elapsed(detail))


def _failure_field_of(detail: str) -> bytes:
    return job_pb2.Lease(last_failure=recorded_failure_message(detail)).SerializeToString()


_remembered_failure_field = lru_cache(maxsize=_REMEMBERED_FAILURES)(_failure_field_of)
