"""The policy: whether, when and why a failed job runs again, and the bounded language of its conditions.

Pure: instants, jitter and facts are arguments. It must not know gRPC, SQL, protobuf, a clock or randomness.
"""
