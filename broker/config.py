"""What a broker is told when it starts. The command line reads it from options and environment; nothing else reads either."""

from dataclasses import dataclass

# What others keep of what has ended: River 1 day, dead jobs 7; pg-boss 7 days; Temporal 3. Each day is one more partition, which
# statements lock.
RETENTION_DAYS = 7


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Settings of one broker process.

    `listen` is HOST:PORT, port 0 takes a free one. `migrate`: bring the database to this version's schema first.
    `grace_seconds`: how long calls may take to end once the broker is told to stop. `database_wait_seconds`: how long a start waits
    for a database that does not answer yet. `shares_port`: other processes of this broker listen there too.
    `retention_days`: how long after its end a job is kept, 0 for ever.
    """

    database_url: str
    listen: str = "127.0.0.1:50051"
    migrate: bool = False
    grace_seconds: float = 5.0
    database_wait_seconds: float = 60.0
    shares_port: bool = False
    retention_days: int = RETENTION_DAYS
