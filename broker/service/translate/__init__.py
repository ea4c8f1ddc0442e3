"""Protobuf to the broker's own values and back, one file per noun.

Must not query, decide or raise gRPC errors. `read_…` takes a message and adds a Violation, with its path, for
each field that is wrong; `…_message` makes a message.
"""
