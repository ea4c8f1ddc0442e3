"""Measures Reprise: a real PostgreSQL and real brokers, with the load in processes of its own.

`scenario` says what a scenario is and lists them; `scenarios` holds one module for each; `loads` the client processes that they start;
`peers` other queues on the same PostgreSQL; `report` turns figures into a table, JSON and plots. `testbed`, `metering`, `machine` and
`workload` are what all of them stand on. Must not change the product: whatever is measured here is what ships.
"""
