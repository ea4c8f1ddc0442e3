"""Playbooks: YAML workflows are read into steps, and executions of them are advanced.

Pure: a text becomes a Playbook or its faults; a Playbook and what has happened so far become the next actions.
It must not know gRPC, SQL, protobuf, a clock or randomness.
"""
