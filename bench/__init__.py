"""Measures Reprise: a real PostgreSQL and a real broker, with the load in processes of its own.

`python -m bench` (or `make bench`) prints a table and writes JSON. Every figure is taken through gRPC and, in the same run and on the same
database, by the broker's own statements without gRPC: what the path to them costs is the ratio. Must not change the product: whatever
is measured here is what ships.
"""
