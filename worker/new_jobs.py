"""Jobs to enqueue, as a program gives them, made the contract's messages.

Owns what cannot be sent at all: every such field is a fault of its own. What may be sent and is wrong, the broker refuses.
"""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from reprise.v1 import job_pb2

from worker.errors import EnqueueRefused
from worker.json_result import LONE_SURROGATE, ResultNotJson, encode_result
from worker.lease import NewJob
from worker.retry_policies import policy_message

# What each field must be that protobuf or Python can refuse; `retry` has rules of its own.
_RULES: Final = {
    "kind": "a text",
    "input": "a mapping",
    "queue": "a text",
    "priority": "a whole number from -100 to 100",
    "delay_seconds": "a number of seconds, 10 000 years at most",
    "idempotency_key": "a text",
    "dependency": "a text",
    "attempt_timeout_seconds": "a number of seconds, 10 000 years at most",
    "labels": "a mapping of texts to texts",
}


def new_job_messages(jobs: Sequence[NewJob]) -> list[job_pb2.NewJob]:
    """The jobs to enqueue. Raises EnqueueRefused with every field of every job that cannot be sent."""
    faults: dict[str, str] = {}
    messages = [_message_of(job, f"jobs[{index}]", faults) for index, job in enumerate(jobs)]
    if faults:
        raise EnqueueRefused.of(faults)
    return messages


def with_key(job: NewJob) -> NewJob:
    """The job with an idempotency key, so that repeating the call that enqueues it is safe."""
    return job if job.idempotency_key else replace(job, idempotency_key=str(uuid.uuid4()))


def _message_of(job: NewJob, path: str, faults: dict[str, str]) -> job_pb2.NewJob:
    message = job_pb2.NewJob()
    for name, rule in _RULES.items():
        value = getattr(job, name)
        try:
            if value is not None or name == "input":
                _give(message, name, value)
        except (TypeError, ValueError, OverflowError) as error:
            faults[f"{path}.{name}"] = _told(error, rule, value)
    if policy := policy_message(job.retry, f"{path}.retry", faults):
        message.retry.CopyFrom(policy)
    return message


def _give(message: job_pb2.NewJob, name: str, value: Any) -> None:
    """Puts a field of NewJob into the message. Raises what protobuf and Python raise of a value that it cannot be."""
    match name:
        case "input":
            message.input_json = _input_json(value)
        case "labels":
            message.labels.update(value)
        case "delay_seconds":
            message.delay.FromTimedelta(timedelta(seconds=value))
        case "attempt_timeout_seconds":
            message.attempt_timeout.FromTimedelta(timedelta(seconds=value))
        case _:
            setattr(message, name, value)


def _told(error: Exception, rule: str, value: object) -> str:
    if isinstance(error, ResultNotJson):
        return error.fault
    return LONE_SURROGATE if isinstance(error, UnicodeEncodeError) else f"must be {rule}, not {value!r:.60}"


def _input_json(value: Any) -> str:
    """JSON text of an input. Raises TypeError on what is no mapping."""
    if not hasattr(value, "keys"):  # dict() also takes a list of pairs, and the empty text
        raise TypeError
    return encode_result(dict(value))
