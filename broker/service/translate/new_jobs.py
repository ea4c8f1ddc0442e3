"""Jobs as programs submit them: every field checked, every bad one named by its path."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from reprise.v1 import job_pb2

from broker.errors import InvalidArgument, Violation
from broker.job import NewJob
from broker.json_text import JsonInvalid, check_object
from broker.policy.retry_policy import RetryPolicy, to_json
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
_KNOWN_TERMS = 4096
_BEFORE_OWN = slice(NewJob._fields.index("priority"), NewJob._fields.index("idempotency_key"))
_AFTER_OWN = slice(NewJob._fields.index("traceparent") + 1, None)


class _Terms(NamedTuple):
    """What many jobs have in common, also in different queues: all but queue, input, idempotency key and traceparent."""

    kind: str
    before: tuple[object, ...]  # the fields of NewJob from `priority` to `max_attempts`
    after: tuple[object, ...]  # those from `delay_seconds` on


class NewJobReader:
    """Reads jobs; remembers the terms it has seen, as programs send the same few again and again."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Terms] = {}
        # The last job without what is its own, and its terms: the next one is most often alike, and to compare takes a third of the time
        # that it takes to look the terms up (measured 2026-11).
        self._last: tuple[job_pb2.NewJob, _Terms] | None = None

    def read(self, messages: Sequence[job_pb2.NewJob]) -> list[NewJob]:
        """All jobs of a call; takes out of `messages` what it has read. Raises InvalidArgument with a violation for every bad field."""
        if not 1 <= len(messages) <= MAX_JOBS:
            raise InvalidArgument(Violation("jobs", f"must be 1 to {MAX_JOBS} jobs, not {len(messages)}"))
        violations: list[Violation] = []
        jobs = [self._read(message, index, violations) for index, message in enumerate(messages)]
        if violations:
            raise InvalidArgument(*violations)
        return jobs

    def _read(self, message: job_pb2.NewJob, index: int, violations: list[Violation]) -> NewJob:
        text = message.input_json
        if text:
            try:
                check_object(text, MAX_INPUT_BYTES)
            except JsonInvalid as error:
                violations.append(Violation(f"jobs[{index}].input_json", str(error)))
        else:
            text = _read_input(message, index, violations)
        message.ClearField("body")
        if key := message.idempotency_key:
            _check_key(key, index, violations)
            message.ClearField("idempotency_key")
        if traceparent := message.traceparent:
            if not _TRACEPARENT.fullmatch(traceparent):
                violations.append(Violation(f"jobs[{index}].traceparent", "is not a W3C traceparent"))
            message.ClearField("traceparent")
        queue = message.queue or "default"
        last = self._last  # large calls are read in threads: message and terms are taken together
        if last is not None and message == last[0]:
            terms = last[1]
        else:
            if not is_name(queue):
                violations.append(Violation(f"jobs[{index}].queue", NAME_RULE))
            terms = self._terms(message, index, violations)
        own = (queue, terms.kind, text)
        return NewJob._make((*own, *terms.before, key or None, traceparent or None, *terms.after))

    def _terms(self, message: job_pb2.NewJob, index: int, violations: list[Violation]) -> _Terms:
        """The terms of a job, of which is left only what others may have too; with violations, anything."""
        last = job_pb2.NewJob()
        last.CopyFrom(message)
        message.ClearField("queue")
        serialized = message.SerializeToString(deterministic=True)
        terms = self._known.get(serialized)
        if terms is None:
            found: list[Violation] = []
            terms = _read_terms(message, f"jobs[{index}]", found)
            if found:
                violations.extend(found)
                return terms
            if len(self._known) >= _KNOWN_TERMS:
                self._known.clear()
            self._known[serialized] = terms
        self._last = (last, terms) if is_name(last.queue or "default") else None
        return terms


def _read_terms(message: job_pb2.NewJob, path: str, violations: list[Violation]) -> _Terms:
    kind, priority = message.kind, message.priority
    if not is_name(kind):
        violations.append(Violation(f"{path}.kind", NAME_RULE))
    if not -_MAX_PRIORITY <= priority <= _MAX_PRIORITY:
        violations.append(Violation(f"{path}.priority", f"must be -{_MAX_PRIORITY} to {_MAX_PRIORITY}"))
    if (dependency := message.dependency) and not is_name(dependency):
        violations.append(Violation(f"{path}.dependency", NAME_RULE))
    policy = _read_policy(message, path, violations)
    job = NewJob(
        queue="",
        kind=kind,
        input="",
        priority=priority,
        policy=None if policy is None else to_json(policy),
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
    )
    fields: tuple[object, ...] = job
    return _Terms(kind, fields[_BEFORE_OWN], fields[_AFTER_OWN])


def _read_policy(message: job_pb2.NewJob, path: str, violations: list[Violation]) -> RetryPolicy | None:
    match message.WhichOneof("policy"):
        case "retry":
            return read_retry_policy(message.retry, f"{path}.retry", violations)
        case "retry_policy":
            violations.append(
                Violation(f"{path}.retry_policy", "is not supported yet: give `retry`", "NOT_SUPPORTED_YET")
            )
            return None
        case _:
            return None


def _check_key(key: str, index: int, violations: list[Violation]) -> None:
    if len(key) > _MAX_KEY_CHARACTERS or "\0" in key:
        violations.append(
            Violation(
                f"jobs[{index}].idempotency_key",
                f"must be 1 to {_MAX_KEY_CHARACTERS} characters without NUL",
            )
        )


@lru_cache(maxsize=16_384)
def is_name(text: str) -> bool:
    """Whether `text` may name a queue, a kind or a dependency. Remembered, as the same few come again and again."""
    return _NAME.fullmatch(text) is not None


def _read_input(message: job_pb2.NewJob, index: int, violations: list[Violation]) -> str:
    """The input of a job whose `input_json` is empty."""
    try:
        if message.HasField("input_json"):
            check_object("", MAX_INPUT_BYTES)
        return struct_json(message.input, MAX_INPUT_BYTES) if message.HasField("input") else "{}"
    except JsonInvalid as error:
        violations.append(Violation(f"jobs[{index}].{message.WhichOneof('body')}", str(error)))
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
