"""Brings jobs to the streams that have credits for them: who gets what, in which order, and what becomes of it when a stream ends.

Owns streams, credits and floors, all in memory and lost without harm. Must not know gRPC or SQL.
"""

from broker.dispatcher.dispatcher import Dispatcher
from broker.dispatcher.stream import LeaseStream, Notice

__all__ = ["Dispatcher", "LeaseStream", "Notice"]
