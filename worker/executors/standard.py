"""The executors that `reprise worker` runs with."""

from collections.abc import Mapping

from worker.attempt import Executor
from worker.credentials import Credentials
from worker.executors.duckdb_step import DuckdbStep
from worker.executors.http_step import HttpStep
from worker.executors.postgres_step import PostgresStep
from worker.executors.python_step import PythonStep


def standard_executors(credentials: Credentials, environment: Mapping[str, str]) -> dict[str, Executor]:
    """Kind to executor. `environment` is what the code of jobs gets to see."""
    return {
        "python": PythonStep(environment),
        "http": HttpStep(credentials),
        "postgres": PostgresStep(credentials),
        "duckdb": DuckdbStep(environment),
    }
