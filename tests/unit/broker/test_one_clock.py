"""Every instant of every statement comes from noetl.clock(), which tests move: no SQL asks PostgreSQL by itself."""

import re
from pathlib import Path

import broker.store

OTHER_CLOCKS = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp)\(\)|\b(current_timestamp|current_date|current_time|localtimestamp)\b",
    re.IGNORECASE,
)
# The clock itself; and the table of schema versions, which is there before the schema.
ALLOWED = {("0001_jobs.sql", "statement_timestamp()"), ("migrate.py", "now()")}


def test_no_statement_asks_another_clock() -> None:
    store = Path(broker.store.__file__).parent

    asked = {
        (path.name, match.group())
        for path in [*store.glob("*.py"), *store.glob("migrations/*.sql")]
        for match in OTHER_CLOCKS.finditer(path.read_text())
    }

    assert asked == ALLOWED
