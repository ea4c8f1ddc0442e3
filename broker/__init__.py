"""The broker: it keeps jobs, grants leases, and decides whether, when and why a failed job runs again."""
