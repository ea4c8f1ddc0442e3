"""Leases as they are delivered."""

import json

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from reprise.v1 import job_pb2

from broker.job import Grant
from broker.lifecycle.tokens import TokenCodec
from broker.service.translate.failures import recorded_failure_message
from broker.service.translate.instants import timestamp_message

# Ids are milliseconds since 2025-01-01 UTC, shifted left by 22 bits.
_ID_EPOCH_MILLISECONDS = 1_735_689_600_000
_ID_SHIFT = 22


def token_of(codec: TokenCodec, grant: Grant) -> str:
    """The token that names a granted lease."""
    return codec.issue(grant.lease_id, grant.job_id, in_execution=grant.execution_id is not None)


def lease_message(codec: TokenCodec, grant: Grant) -> job_pb2.Lease:
    """The lease with all that its worker needs."""
    lease = job_pb2.Lease(
        lease_token=token_of(codec, grant),
        job_id=grant.job_id,
        queue=grant.queue,
        kind=grant.kind,
        attempt=grant.attempt,
        max_attempts=grant.max_attempts,
        lease_expires_at=timestamp_message(grant.expires_at),
        lease_duration=_duration(grant.lease_seconds),
        input_json=grant.input,
        created_at=_created_at(grant.job_id),
    )
    if grant.execution_id is not None:
        lease.execution_id = grant.execution_id
        lease.step = grant.step or ""
    if grant.last_failure is not None:
        lease.last_failure.CopyFrom(recorded_failure_message(grant.last_failure))
    if grant.checkpoint is not None:
        lease.checkpoint_json = grant.checkpoint
    if grant.attempt_timeout_seconds is not None:
        lease.attempt_timeout.CopyFrom(_duration(grant.attempt_timeout_seconds))
    if grant.traceparent is not None:
        lease.traceparent = grant.traceparent
    if grant.dependency is not None:
        lease.dependency = grant.dependency
    if grant.labels is not None:
        lease.labels.update(json.loads(grant.labels))
    return lease


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1_000_000) * 1000)


def _created_at(job_id: int) -> Timestamp:
    seconds, milliseconds = divmod((job_id >> _ID_SHIFT) + _ID_EPOCH_MILLISECONDS, 1000)
    return Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000)
