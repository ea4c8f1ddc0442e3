"""The worker of Reprise: takes leases from a broker, runs them and reports what became of them.

    from worker import Worker

    worker = Worker("127.0.0.1:50051", queues=["mail"])

    @worker.handler("send-email")
    def send_email(job):
        return {"sent_to": job.input["to"]}

    worker.run()

Names are loaded when they are first used: the child processes that run a step import this package for every
attempt, and must not pay for gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.client import Client, enqueue
    from worker.errors import BrokerUnavailable, EnqueueError, EnqueueRefused, KeyTaken
    from worker.failure import Failure, JobFailed
    from worker.job import Job
    from worker.lease import Enqueued, NewJob
    from worker.sdk import Worker

__all__ = [
    "BrokerUnavailable",
    "Client",
    "EnqueueError",
    "EnqueueRefused",
    "Enqueued",
    "Failure",
    "Job",
    "JobFailed",
    "KeyTaken",
    "NewJob",
    "Worker",
    "enqueue",
]

_HOME_OF = {
    "BrokerUnavailable": "worker.errors",
    "Client": "worker.client",
    "EnqueueError": "worker.errors",
    "EnqueueRefused": "worker.errors",
    "Enqueued": "worker.lease",
    "Failure": "worker.failure",
    "Job": "worker.job",
    "JobFailed": "worker.failure",
    "KeyTaken": "worker.errors",
    "NewJob": "worker.lease",
    "Worker": "worker.sdk",
    "enqueue": "worker.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
