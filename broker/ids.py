"""Ids of jobs, leases, events and places in a lane: an instant and a number each, as noetl.next_id of the first migration makes them."""

from datetime import UTC, datetime

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
"""The instant of id 0."""
IDS_PER_MILLISECOND = 1 << 22
IDS_PER_SECOND = 1000 * IDS_PER_MILLISECOND
