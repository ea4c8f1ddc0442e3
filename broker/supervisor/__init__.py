"""Processes of ours as one: PostgreSQL, a broker and a worker, as `reprise dev` and the demo run them; several brokers behind one port.

Owns the order in which the parts start and stop, and that none outlives this process. Must not do what the parts do: it knows
their command lines, their log files and the line that says they are ready.
"""

from broker.supervisor.child import ChildFailed
from broker.supervisor.stack import DRAIN_SECONDS, LogsInUse, Stack, StackConfig

__all__ = ["DRAIN_SECONDS", "ChildFailed", "LogsInUse", "Stack", "StackConfig"]
