"""Lease tokens: opaque to clients, the lease's ids and a signature to the broker.

A token that was not issued here is told apart without asking the database. Layout, before base64: lease_id and job_id (8 bytes
each, big-endian), flags (1), signature (10: BLAKE2b keyed per database, of which guessing one takes 2^79 tries on average).
"""

import base64
import binascii
import hashlib
import hmac
import struct
from typing import NamedTuple

_IDS = struct.Struct(">qqB")
_SIGNATURE_BYTES = 10
_TOKEN_LENGTH = 36  # (17 + 10) bytes in base64
_IN_EXECUTION = 1


class LeaseRef(NamedTuple):
    """Which lease a token names; `in_execution`: its job is a step of a playbook run."""

    lease_id: int
    job_id: int
    in_execution: bool


class TokenCodec:
    """Issues and reads tokens with the key that all brokers of a database share."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, lease_id: int, job_id: int, *, in_execution: bool) -> str:
        """The token of a lease: 36 characters of URL-safe base64."""
        ids = _IDS.pack(lease_id, job_id, _IN_EXECUTION if in_execution else 0)
        return base64.urlsafe_b64encode(ids + self._sign(ids)).decode("ascii")

    def read(self, token: str) -> LeaseRef | None:
        """Which lease the token names, or None if it was never issued."""
        if len(token) != _TOKEN_LENGTH:
            return None
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        ids, signature = raw[: _IDS.size], raw[_IDS.size :]
        if not hmac.compare_digest(signature, self._sign(ids)):
            return None
        lease_id, job_id, flags = _IDS.unpack(ids)
        return LeaseRef(lease_id, job_id, flags == _IN_EXECUTION)

    def _sign(self, ids: bytes) -> bytes:
        return hashlib.blake2b(ids, key=self._key, digest_size=_SIGNATURE_BYTES).digest()
