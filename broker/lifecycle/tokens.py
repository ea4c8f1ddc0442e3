"""Lease tokens: opaque to clients, the lease's ids and a signature to the broker.

A token that was not issued here is told apart without asking the database. Layout, before base64: lease_id and job_id (8 bytes
each, big-endian), flags (1), signature (10: BLAKE2b keyed per database, of which guessing one takes 2^79 tries on average).
"""

import binascii
import hashlib
import hmac
import struct
from typing import NamedTuple

_IDS = struct.Struct(">qqB")
_SIGNATURE_BYTES = 10
_TOKEN_LENGTH = 36  # (17 + 10) bytes in base64
_IN_EXECUTION = 1
# Tokens that were issued here lately and are known without a look at their signature: most are spent where they were issued.
# At some 300 bytes each, twice as many at most.
_REMEMBERED = 50_000
# The alphabet of RFC 4648 §5, of which a character of §4 that is not in it is no part.
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_+/", b"+/\0\0")


class LeaseRef(NamedTuple):
    """Which lease a token names; `in_execution`: its job is a step of a playbook run."""

    lease_id: int
    job_id: int
    in_execution: bool


class TokenCodec:
    """Issues and reads tokens with the key that all brokers of a database share."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=_SIGNATURE_BYTES)
        self._issued: dict[str, LeaseRef] = {}
        self._issued_before: dict[str, LeaseRef] = {}

    def issue(self, lease_id: int, job_id: int, *, in_execution: bool) -> str:
        """The token of a lease: 36 characters of URL-safe base64."""
        ids = _IDS.pack(lease_id, job_id, _IN_EXECUTION if in_execution else 0)
        encoded = binascii.b2a_base64(ids + self._sign(ids), newline=False)
        token = encoded.translate(_TO_URL_SAFE).decode("ascii")
        if len(self._issued) >= _REMEMBERED:
            self._issued, self._issued_before = {}, self._issued
        self._issued[token] = LeaseRef(lease_id, job_id, in_execution)
        return token

    def read(self, token: str) -> LeaseRef | None:
        """Which lease the token names, or None if it was never issued."""
        return self._issued.get(token) or self._issued_before.get(token) or self._verified(token)

    def _verified(self, token: str) -> LeaseRef | None:
        """The same by its signature."""
        if len(token) != _TOKEN_LENGTH:
            return None
        try:
            encoded = token.encode("ascii").translate(_FROM_URL_SAFE)
            raw = binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:
            return None
        ids, signature = raw[: _IDS.size], raw[_IDS.size :]
        if not hmac.compare_digest(signature, self._sign(ids)):
            return None
        lease_id, job_id, flags = _IDS.unpack(ids)
        return LeaseRef(lease_id, job_id, flags == _IN_EXECUTION)

    def _sign(self, ids: bytes) -> bytes:
        signature = self._keyed.copy()
        signature.update(ids)
        return signature.digest()
