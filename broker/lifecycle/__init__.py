"""The verbs of a job's life: enqueue, complete, fail, extend, release, expire, and the advance of executions.

Owns what each verb means; decides through `broker.policy`, stores through `broker.store`. Must not know gRPC or SQL.
"""

from broker.lifecycle.lifecycle import Lifecycle
from broker.lifecycle.signals import Signals

__all__ = ["Lifecycle", "Signals"]
