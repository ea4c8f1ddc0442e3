"""The gRPC edge: translates between protobuf and the broker's own values, and errors into statuses.

Must not decide or query.
"""
