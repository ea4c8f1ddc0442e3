"""Puts jobs in: bodies into `job`, places into `ready`, `delayed` or `lease`; one statement for many calls.

Must not check jobs: what comes here fits the tables. Must not choose who takes a job at once: the dispatcher says.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from typing import NamedTuple

from psycopg import errors as pg_errors

from broker.errors import Unavailable
from broker.job import NewJob, Taker
from broker.store.arrays import Float8s, Instants, Int2s, Int4s, Int8s, Texts
from broker.store.session import Row, Session
from broker.store.upkeep import ensure_partitions

# Every statement of this file starts with the jobs of the call as rows, each with its new id: `base` and those behind it.
# A job's row is the record of its enqueue.
_JOBS = """
WITH t AS MATERIALIZED (SELECT noetl.clock() AS now, noetl.next_id() AS base),
x AS MATERIALIZED (
  SELECT u.*, (SELECT base FROM t) + u.item AS job_id{nulls} FROM unnest({arrays}) WITH ORDINALITY u({columns}, item)
),
"""

# The columns of NewJob and two more, by their arrays. What the first six do not tell, most jobs do without.
_PLAIN_COLUMNS = {
    "queue": "text", "kind": "text", "input": "text", "priority": "int2", "policy_id": "int4", "max_attempts": "int2",
}  # fmt: skip
_COLUMNS = _PLAIN_COLUMNS | {
    "key": "text", "traceparent": "text", "delay_seconds": "float8", "run_at": "timestamptz", "dependency": "text",
    "attempt_timeout_seconds": "float8", "labels": "text", "execution_id": "int8", "step": "text", "call": "int4", "stream": "int4",
}  # fmt: skip
_OTHERS = tuple(name for name in _COLUMNS if name not in _PLAIN_COLUMNS and name != "stream")

# Jobs that have nothing but what all have, of which none is taken at once.
_PUT_PLAIN = """
body AS (
  INSERT INTO job (job_id, policy_id, priority, max_attempts, queue, kind, input)
  SELECT job_id, policy_id, priority, max_attempts, queue, kind, input FROM x
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns) SELECT queue, priority, job_id, job_id, 0, 0 FROM x
)
SELECT array_agg(job_id ORDER BY item) FROM x
"""

# Keys, all of which are taken to be new, as most are: one that is not undoes the statement (refuse_race), and it is run as below.
_NEW_KEYS = """
k AS (
  INSERT INTO idempotency (queue, key, job_id) SELECT queue, key, job_id FROM x WHERE key IS NOT NULL ORDER BY queue, key
  ON CONFLICT DO NOTHING RETURNING job_id
),
"""

# A key that was used before: its job, and whether it is the same one. A call with a job that is not the same is refused whole.
# A key that another transaction takes meanwhile aborts the statement: it is run again and then sees that key.
_KEYS = """
seen AS MATERIALIZED (
  SELECT x.item, x.call, i.job_id, coalesce(j.kind = x.kind AND j.input::jsonb = x.input::jsonb, true) AS same
  FROM x
  CROSS JOIN LATERAL (SELECT job_id FROM idempotency WHERE queue = x.queue AND key = x.key OFFSET 0) i
  LEFT JOIN LATERAL (SELECT kind, input FROM job WHERE job.job_id = i.job_id OFFSET 0) j ON true
),
n AS MATERIALIZED (
  SELECT * FROM x WHERE item NOT IN (SELECT item FROM seen) AND call NOT IN (SELECT call FROM seen WHERE NOT same)
),
k AS (
  INSERT INTO idempotency (queue, key, job_id) SELECT queue, key, job_id FROM n WHERE key IS NOT NULL ORDER BY queue, key
  ON CONFLICT DO NOTHING RETURNING job_id
),
"""

_BODIES = """
body AS (
  INSERT INTO job (job_id, execution_id, policy_id, priority, max_attempts, queue, kind, step, input, attempt_timeout_seconds,
    idempotency_key, dependency, traceparent, labels)
  SELECT job_id, execution_id, policy_id, priority, max_attempts, queue, kind, step, input, attempt_timeout_seconds,
    key, dependency, traceparent, labels::jsonb FROM {jobs}
),
"""

# Jobs that no stream takes wait: for a worker, or for their time.
_WAIT = """
waiting AS MATERIALIZED (
  SELECT item, job_id, queue, priority,
    CASE WHEN run_at > t.now THEN run_at WHEN delay_seconds > 0 THEN t.now + delay_seconds * interval '1 second' END AS due_at
  FROM {jobs} n, t WHERE stream IS NULL
),
available AS (
  INSERT INTO ready (queue, priority, seq, job_id, attempts, returns)
  SELECT queue, priority, job_id, job_id, 0, 0 FROM waiting WHERE due_at IS NULL
),
scheduled AS (
  INSERT INTO delayed (due_at, job_id, priority, attempts, queue)
  SELECT due_at, job_id, priority, 0, queue FROM waiting WHERE due_at IS NOT NULL
),
"""

# The others are leased as they come in: no row in `ready`, no second statement, and nothing read back that the broker has at hand.
_TAKE = """
taken AS MATERIALIZED (
  SELECT item, job_id, queue, priority, max_attempts, worker_id, lease_seconds,
    (SELECT base FROM t) + (SELECT count(*) FROM x) + item AS lease_id,
    (SELECT now FROM t) + least(lease_seconds, attempt_timeout_seconds) * interval '1 second' AS expires_at,
    (SELECT now FROM t) + attempt_timeout_seconds * interval '1 second' AS timeout_at
  FROM {jobs} n JOIN unnest(%b::int4[], %b::text[], %b::float8[]) s(stream, worker_id, lease_seconds) USING (stream)
),
leased AS (
  INSERT INTO lease (lease_id, job_id, expires_at, timeout_at, lease_seconds, priority, attempt, returns, queue, worker_id, max_attempts)
  SELECT lease_id, job_id, expires_at, timeout_at, lease_seconds, priority, 1, 0, queue, worker_id, max_attempts FROM taken
),
"""

_WAIT_PLACES = (
    "SELECT item, job_id, due_at, NULL::int8 AS lease_id, NULL::timestamptz AS expires_at FROM waiting"
)
_TAKE_PLACES = "SELECT item, job_id, NULL::timestamptz AS due_at, lease_id, expires_at FROM taken"

_ANSWER = """
placed AS ({places})
SELECT job_id, extract(epoch FROM due_at - t.now)::float8, lease_id, expires_at FROM placed, t ORDER BY item
"""

_ANSWER_NEW_KEYS = """
placed AS ({places})
SELECT job_id, extract(epoch FROM due_at - t.now)::float8, lease_id, expires_at FROM placed, t
WHERE noetl.refuse_race((SELECT count(*) FROM x WHERE key IS NOT NULL) - (SELECT count(*) FROM k))
ORDER BY item
"""

_ANSWER_KEYS = """
placed AS ({places})
SELECT coalesce(seen.job_id, x.job_id), extract(epoch FROM due_at - t.now)::float8, lease_id, expires_at,
  seen.item IS NULL, x.call IN (SELECT call FROM seen WHERE NOT same), NOT coalesce(seen.same, true)
FROM x CROSS JOIN t LEFT JOIN seen USING (item) LEFT JOIN placed USING (item)
WHERE noetl.refuse_race((SELECT count(*) FROM n WHERE key IS NOT NULL) - (SELECT count(*) FROM k))
ORDER BY x.item
"""


class _Keys(Enum):
    """What is known of the idempotency keys of the jobs of a statement."""

    NONE = "there are none"
    NEW = "all are new, as far as can be told"
    SOME_USED = "some may have been used"


_BY_KEYS = {
    _Keys.NONE: ("", _ANSWER),
    _Keys.NEW: (_NEW_KEYS, _ANSWER_NEW_KEYS),
    _Keys.SOME_USED: (_KEYS, _ANSWER_KEYS),
}


def _jobs(columns: Mapping[str, str], nulls: Iterable[str] = ()) -> str:
    """The jobs of a call as rows of these columns; those of `nulls` have no arrays, and are null."""
    return _JOBS.format(
        arrays=", ".join(f"%b::{array}[]" for array in columns.values()),
        columns=", ".join(columns),
        nulls="".join(f", NULL::{_COLUMNS[name]} AS {name}" for name in nulls),
    )


_PLAIN_STATEMENT = _jobs(_PLAIN_COLUMNS) + _PUT_PLAIN


@cache
def _statement(keys: _Keys, *, plain: bool, wait: bool, take: bool) -> str:
    """Puts jobs in; a part for what none of them needs is left out.

    `plain`: they have nothing but what all have; `wait`: some are not taken at once; `take`: some are.
    """
    found, answer = _BY_KEYS[keys]
    jobs = _jobs(_PLAIN_COLUMNS | {"stream": "int4"}, _OTHERS) if plain else _jobs(_COLUMNS)
    parts = [jobs, found, _BODIES]
    places = []
    if wait:
        parts.append(_WAIT)
        places.append(_WAIT_PLACES)
    if take:
        parts.append(_TAKE)
        places.append(_TAKE_PLACES)
    parts.append(answer)
    return "".join(parts).format(
        jobs="n" if keys is _Keys.SOME_USED else "x",
        places=" UNION ALL ".join(places),
    )


_INTERN_POLICY = "INSERT INTO retry_policy (body) SELECT unnest(%b::text[]) ORDER BY 1 ON CONFLICT DO NOTHING"
_POLICY_IDS = "SELECT body, policy_id FROM retry_policy WHERE body = ANY(%b::text[])"
_POLICY_BODIES = "SELECT policy_id, body FROM retry_policy WHERE policy_id = ANY(%b::int4[])"
# A queue that is in use says so every day: retention drops the names of others.
_REGISTER_QUEUES = """
INSERT INTO queue_name (name) SELECT unnest(%b::text[]) ORDER BY 1
ON CONFLICT (name) DO UPDATE SET used_on = excluded.used_on WHERE queue_name.used_on < excluded.used_on
"""

_KNOWN_LIMIT = 100_000
# A call whose day has no partition yet waits for it up to 2 s.
_PARTITION_TRIES = 20
# Much less than a day, the shortest age of retention.
_QUEUES_KNOWN_SECONDS = 3600.0


class Placed(NamedTuple):
    """One job of an enqueue statement. `due_in_seconds` is None when it is available at once or was there already; `lease_id` and
    `expires_at` are None unless a stream has taken it.
    """

    job_id: int
    due_in_seconds: float | None = None
    lease_id: int | None = None
    expires_at: datetime | None = None
    created: bool = True
    refused: bool = False  # its call was not put in
    conflicts: bool = False  # because the key of this very job belongs to another one


class Enqueuer:
    """Runs enqueue statements on one session, and remembers which queues and policies the database knows by now."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._policy_ids: dict[str | None, int] = {}
        self._queues: set[str] = set()
        self._queues_known_until = 0.0  # on the loop's clock

    async def put(
        self,
        jobs: Sequence[NewJob],
        calls: Sequence[int],
        slots: Sequence[int | None] = (),
        takers: Sequence[Taker] = (),
    ) -> list[Placed]:
        """Places for `jobs`, in order; `calls[i]` numbers the call that job i belongs to: a call is put in whole or not at all.

        `slots[i]` is the stream, one of `takers`, that takes job i at once, None where it waits; empty where all wait. No two jobs
        may have the same queue and key, and there are at most 2000. Inside a transaction of the session it commits with that.
        Raises Unavailable.
        """
        queues, kinds, inputs, priorities, policies, max_attempts, *others = zip(*jobs, strict=True)
        await self._know(queues, policies)
        plain = (
            Texts(queues),
            Texts(kinds),
            Texts(inputs),
            Int2s(priorities),
            Int4s([self._policy_ids.get(policy) for policy in policies]),
            Int2s(max_attempts),
        )
        is_plain = all(column.count(None) == len(jobs) for column in others)
        if is_plain and not takers:
            return [Placed(job_id) for job_id in await self._put_plain(plain)]
        keys, traceparents, delays, instants, dependencies, timeouts, labels, executions, steps = others
        arguments: tuple[object, ...] = plain
        if not is_plain:
            arguments += (
                Texts(keys),
                Texts(traceparents),
                Float8s(delays),
                Instants(instants),
                Texts(dependencies),
                Float8s(timeouts),
                Texts(labels),
                Int8s(executions),
                Texts(steps),
                Int4s(calls),
            )
        arguments += (Int4s(slots),)
        if takers:
            arguments += (
                Int4s([taker.stream for taker in takers]),
                Texts([taker.worker_id for taker in takers]),
                Float8s([taker.lease_seconds for taker in takers]),
            )
        knowledge = _Keys.NONE if keys.count(None) == len(jobs) else _Keys.NEW
        # A statement that fails would take the transaction with it.
        if knowledge is _Keys.NEW and self._session.in_transaction:
            knowledge = _Keys.SOME_USED
        while True:
            statement = _statement(
                knowledge, plain=is_plain, wait=not takers or None in slots, take=bool(takers)
            )
            try:
                return [Placed(*row) for row in await self._run(statement, arguments)]
            except pg_errors.SerializationFailure:
                # Or another broker took one at that very moment; now it can be seen.
                knowledge = _Keys.SOME_USED

    async def _put_plain(self, arguments: Sequence[object]) -> list[int]:
        """The ids of jobs that all wait for a worker at once, in order."""
        ((job_ids,),) = await self._run(_PLAIN_STATEMENT, arguments)
        assert isinstance(job_ids, list)
        return job_ids

    async def _run(self, statement: str, arguments: Sequence[object]) -> list[Row]:
        """The rows of a statement, tried again where today's partitions had to be made first."""
        while True:
            try:
                return await self._session.rows(statement, arguments)
            except pg_errors.CheckViolation as error:
                if self._session.in_transaction:
                    raise Unavailable("the partitions of today are being made") from error
                await ensure_partitions(self._session, tries=_PARTITION_TRIES)

    @property
    def policy_ids(self) -> Mapping[str | None, int]:
        """The numbers of the policies that were put in last, and of others, by their texts."""
        return self._policy_ids

    def forget(self) -> None:
        """Looks queues and policies up anew: those that a transaction added are gone when it was rolled back."""
        self._queues = set()
        self._policy_ids.clear()

    async def _know(self, queues: Iterable[str], policies: Iterable[str | None]) -> None:
        """Makes sure that each of these queues and policies has its row; costs nothing once they are known."""
        now = asyncio.get_running_loop().time()
        if now >= self._queues_known_until:
            self._queues = set()
            self._queues_known_until = now + _QUEUES_KNOWN_SECONDS
        new_queues = set(queues) - self._queues
        if new_queues:
            await self._session.rows(_REGISTER_QUEUES, (Texts(new_queues),))
            self._queues = (self._queues if len(self._queues) < _KNOWN_LIMIT else set()) | new_queues
        wanted = set(policies) - {None}
        new_policies = wanted - self._policy_ids.keys()
        if new_policies:
            await self._session.rows(_INTERN_POLICY, (Texts(new_policies),))
            if len(self._policy_ids) > _KNOWN_LIMIT:
                self._policy_ids.clear()
                new_policies = wanted
            self._policy_ids.update(await self._session.rows(_POLICY_IDS, (Texts(new_policies),)))


class PolicyBodies:
    """The texts of policies by their number; they never change, so each is read once."""

    def __init__(self) -> None:
        self._bodies: dict[int, str] = {}

    async def of(self, session: Session, policy_ids: set[int]) -> dict[int, str]:
        """Policy texts (canonical JSON) by number. Raises Unavailable."""
        known = {policy_id: self._bodies[policy_id] for policy_id in policy_ids if policy_id in self._bodies}
        if missing := policy_ids - known.keys():
            read: dict[int, str] = dict(await session.rows(_POLICY_BODIES, (Int4s(missing),)))
            if len(self._bodies) > _KNOWN_LIMIT:
                self._bodies.clear()
            self._bodies.update(read)
            known |= read
        return known
