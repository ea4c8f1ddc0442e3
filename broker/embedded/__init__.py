"""A PostgreSQL server of our own for `reprise dev`, the demo and the tests.

Owns where its binaries come from, how the server is made, started and stopped, and that it ends with the process that started it.
It must not know what is stored in it: no schema, no queries. A production broker is given a database URL and never comes here.
"""

from broker.embedded.binaries import Binaries, BinariesNotFound, Source, find_binaries
from broker.embedded.identity import Identity
from broker.embedded.server import PostgresFailed, PostgresServer

__all__ = [
    "Binaries",
    "BinariesNotFound",
    "Identity",
    "PostgresFailed",
    "PostgresServer",
    "Source",
    "find_binaries",
]
