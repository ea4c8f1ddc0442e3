"""Other queues on PostgreSQL, each a program of its own in its best documented configuration, with no-op handlers.

A program takes one JSON object on its command line (`database_url`, `figure`, `jobs`, `batch`, `payload`, `callers`, `spread_seconds`),
makes its tables anew, and prints JSON lines: `{"begin": true}` and `{"end": FIGURE, "jobs": N}` around every stretch that is measured, or
`{"waits": FIGURE, "milliseconds": […]}`. Packages are installed by their ordinary clients at the versions pinned here, into a folder of
results, never into the project's environment.
"""
