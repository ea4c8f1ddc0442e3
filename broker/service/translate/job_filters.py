"""Filters of jobs: from protobuf to what the store looks for."""

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from reprise.v1 import job_pb2, queue_service_pb2

from broker.errors import Violation
from broker.ids import EPOCH, IDS_PER_MILLISECOND
from broker.service.translate.instants import read_timestamp
from broker.store.job_records import Criteria
from broker.store.job_sources import IdRange

MAX_JOB_IDS = 1000
_MAX_ID = 2**63 - 1
_MILLISECOND = timedelta(milliseconds=1)
_TEXTS = ("queue", "kind", "dependency", "failure_type")


class JobQuery(NamedTuple):
    """What a filter asks for; `job_ids` None: jobs of any id."""

    criteria: Criteria
    job_ids: tuple[int, ...] | None
    within: IdRange


def read_job_filter(message: queue_service_pb2.JobFilter, path: str, violations: list[Violation]) -> JobQuery:
    """What the filter asks for; one violation more for each field that cannot be used."""
    if len(message.job_ids) > MAX_JOB_IDS:
        violations.append(Violation(f"{path}.job_ids", f"must be at most {MAX_JOB_IDS}"))
    if message.fingerprint:
        violations.append(Violation(f"{path}.fingerprint", "is not supported yet", "NOT_SUPPORTED_YET"))
    for name in _TEXTS:
        _refuse_nul(f"{path}.{name}", (getattr(message, name),), violations)
    _refuse_nul(f"{path}.labels", (text for pair in message.labels.items() for text in pair), violations)
    criteria = Criteria(
        queue=message.queue or None,
        kind=message.kind or None,
        execution_id=message.execution_id or None,
        dependency=message.dependency or None,
        labels=json.dumps(dict(message.labels)) if message.labels else None,
        statuses=_read_statuses(message.statuses, f"{path}.statuses", violations),
        failure_type=message.failure_type or None,
    )
    within = IdRange(_lowest_id(message, path, violations), _id_limit(message, path, violations))
    return JobQuery(criteria, tuple(message.job_ids) if message.job_ids else None, within)


def _read_statuses(
    statuses: Iterable[job_pb2.JobStatus.ValueType], path: str, violations: list[Violation]
) -> tuple[str, ...] | None:
    found: set[str] = set()
    for index, status in enumerate(statuses):
        if status == job_pb2.JOB_STATUS_UNSPECIFIED or status not in job_pb2.JobStatus.values():
            violations.append(Violation(f"{path}[{index}]", f"there is no status {status}"))
        else:
            found.add(job_pb2.JobStatus.Name(status).removeprefix("JOB_STATUS_").lower())
    return tuple(sorted(found)) or None


def _lowest_id(message: queue_service_pb2.JobFilter, path: str, violations: list[Violation]) -> int:
    """The lowest id of the first millisecond after `created_after`."""
    if not message.HasField("created_after"):
        return 0
    after = read_timestamp(message.created_after, f"{path}.created_after", violations)
    return _bounded(((after - EPOCH) // _MILLISECOND + 1) * IDS_PER_MILLISECOND)


def _id_limit(message: queue_service_pb2.JobFilter, path: str, violations: list[Violation]) -> int:
    """The lowest id of the first millisecond that is not before `created_before`."""
    if not message.HasField("created_before"):
        return _MAX_ID
    before = read_timestamp(message.created_before, f"{path}.created_before", violations)
    return _bounded(-((EPOCH - before) // _MILLISECOND) * IDS_PER_MILLISECOND)


def _bounded(job_id: int) -> int:
    return max(0, min(job_id, _MAX_ID))


def _refuse_nul(path: str, texts: Iterable[str], violations: list[Violation]) -> None:
    if any("\0" in text for text in texts):
        violations.append(Violation(path, "must not contain NUL"))
