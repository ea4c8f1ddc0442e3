"""Jobs as programs submit them: every field checked, every bad one named by its path."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from reprise.v1 import job_pb2, retry_pb2

from broker.errors import InvalidArgument, Violation
from broker.job import NewJob
from broker.json_text import JsonInvalid, check_object
from broker.policy.retry_policy import to_json
from broker.service.translate.instants import read_duration, read_timestamp
from broker.service.translate.json_values import struct_json
from broker.service.translate.retry_policies import read_retry_policy

MAX_INPUT_BYTES = 1024 * 1024
MAX_JOBS = 1000
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
NAME_RULE = "must be 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-'"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?")
_MAX_PRIORITY = 100
_MAX_KEY_CHARACTERS = 200
_MAX_LABELS = 16
_MAX_LABEL_CHARACTERS = 63
_MAX_DELAY = timedelta(days=3650)
_MAX_ATTEMPT_TIMEOUT = timedelta(days=365)
_SHORTEST_ATTEMPT_TIMEOUT = timedelta(milliseconds=1)
_KNOWN_POLICIES = 4096


class _Policy(NamedTuple):
    text: str
    max_attempts: int


class NewJobReader:
    """Reads jobs; remembers the policies it has seen, as programs send the same few again and again."""

    def __init__(self) -> None:
        self._policies: dict[bytes, _Policy] = {}

    def read(self, messages: Sequence[job_pb2.NewJob]) -> list[NewJob]:
        """All jobs of a call. Raises InvalidArgument with a violation for every bad field of every job."""
        if not 1 <= len(messages) <= MAX_JOBS:
            raise InvalidArgument(Violation("jobs", f"must be 1 to {MAX_JOBS} jobs, not {len(messages)}"))
        violations: list[Violation] = []
        jobs = [self._read(message, f"jobs[{index}]", violations) for index, message in enumerate(messages)]
        if violations:
            raise InvalidArgument(*violations)
        return jobs

    def _read(self, message: job_pb2.NewJob, path: str, violations: list[Violation]) -> NewJob:
        queue, kind, priority = message.queue or "default", message.kind, message.priority
        if not is_name(queue):
            violations.append(Violation(f"{path}.queue", NAME_RULE))
        if not is_name(kind):
            violations.append(Violation(f"{path}.kind", NAME_RULE))
        if not -_MAX_PRIORITY <= priority <= _MAX_PRIORITY:
            violations.append(Violation(f"{path}.priority", f"must be -{_MAX_PRIORITY} to {_MAX_PRIORITY}"))
        if (dependency := message.dependency) and not is_name(dependency):
            violations.append(Violation(f"{path}.dependency", NAME_RULE))
        if (traceparent := message.traceparent) and not _TRACEPARENT.fullmatch(traceparent):
            violations.append(Violation(f"{path}.traceparent", "is not a W3C traceparent"))
        if (key := message.idempotency_key) and (len(key) > _MAX_KEY_CHARACTERS or "\0" in key):
            violations.append(
                Violation(
                    f"{path}.idempotency_key", f"must be 1 to {_MAX_KEY_CHARACTERS} characters without NUL"
                )
            )
        policy = self._read_policy(message, path, violations)
        return NewJob(
            queue=queue,
            kind=kind,
            input=_read_input(message, path, violations),
            priority=priority,
            policy=None if policy is None else policy.text,
            max_attempts=1 if policy is None else policy.max_attempts,
            delay_seconds=(
                read_duration(
                    message.delay, f"{path}.delay", violations, least=timedelta(), most=_MAX_DELAY
                ).total_seconds()
                if message.HasField("delay")
                else None
            ),
            run_at=read_timestamp(message.run_at, f"{path}.run_at", violations)
            if message.HasField("run_at")
            else None,
            idempotency_key=key or None,
            dependency=dependency or None,
            attempt_timeout_seconds=(
                read_duration(
                    message.attempt_timeout,
                    f"{path}.attempt_timeout",
                    violations,
                    least=_SHORTEST_ATTEMPT_TIMEOUT,
                    most=_MAX_ATTEMPT_TIMEOUT,
                ).total_seconds()
                if message.HasField("attempt_timeout")
                else None
            ),
            labels=_read_labels(message, path, violations) if message.labels else None,
            traceparent=traceparent or None,
        )

    def _read_policy(self, message: job_pb2.NewJob, path: str, violations: list[Violation]) -> _Policy | None:
        match message.WhichOneof("policy"):
            case "retry":
                return self._known_policy(message.retry, f"{path}.retry", violations)
            case "retry_policy":
                violations.append(
                    Violation(
                        f"{path}.retry_policy", "is not supported yet: give `retry`", "NOT_SUPPORTED_YET"
                    )
                )
                return None
            case _:
                return None

    def _known_policy(
        self, message: retry_pb2.RetryPolicy, path: str, violations: list[Violation]
    ) -> _Policy | None:
        serialized = message.SerializeToString(deterministic=True)
        known = self._policies.get(serialized)
        if known is not None:
            return known
        found: list[Violation] = []
        policy = read_retry_policy(message, path, found)
        if found:
            violations.extend(found)
            return None
        known = _Policy(to_json(policy), policy.max_attempts)
        if len(self._policies) >= _KNOWN_POLICIES:
            self._policies.clear()
        self._policies[serialized] = known
        return known


@lru_cache(maxsize=4096)
def is_name(text: str) -> bool:
    """Whether `text` may name a queue, a kind or a dependency. Remembered, as the same few come again and again."""
    return _NAME.fullmatch(text) is not None


def _read_input(message: job_pb2.NewJob, path: str, violations: list[Violation]) -> str:
    try:
        match message.WhichOneof("body"):
            case "input_json":
                check_object(message.input_json, MAX_INPUT_BYTES)
                return message.input_json
            case "input":
                return struct_json(message.input, MAX_INPUT_BYTES)
            case _:
                return "{}"
    except JsonInvalid as error:
        violations.append(Violation(f"{path}.{message.WhichOneof('body')}", str(error)))
        return "{}"


def _read_labels(message: job_pb2.NewJob, path: str, violations: list[Violation]) -> str:
    labels = dict(message.labels)
    if len(labels) > _MAX_LABELS:
        violations.append(Violation(f"{path}.labels", f"must be at most {_MAX_LABELS}"))
    for key, value in labels.items():
        if (
            not 1 <= len(key) <= _MAX_LABEL_CHARACTERS
            or len(value) > _MAX_LABEL_CHARACTERS
            or "\0" in key + value
        ):
            violations.append(
                Violation(
                    f"{path}.labels", f"{key[:80]!r}: at most {_MAX_LABEL_CHARACTERS} characters, without NUL"
                )
            )
    return json.dumps(labels, ensure_ascii=False)
