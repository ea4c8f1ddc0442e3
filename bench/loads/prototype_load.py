"""The same load by the statements of the lanes prototype: what this machine's PostgreSQL gives to the plainest form of the idea.

Frozen as it was before the product was built, so that the product cannot set its own mark: one enqueuer, two workers that each lease and
complete in turn, and the upkeep that moves due and expired rows, over asyncpg in one process. The same three events for each job. It checks
no token, knows no policy and no queue by name, and does no more for a job than the lanes.
"""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import uvloop

from bench.measurement import Row, tell
from bench.metering import Meter
from bench.workload import MAX_ATTEMPTS, STREAMS, Figure, Load, Task

_QUEUES = (1, 2, 3, 4)
_PRIORITIES = (0, 1)
_BACKLOG = 20_000  # the enqueuer waits beyond
_LEASE = timedelta(seconds=30)
_IDLE_SECONDS = 0.002
_UPKEEP_SECONDS = 0.1
_UPKEEP_ROWS = 1000
_UPKEEP_OVERLAP = timedelta(seconds=5)
_LOOK_BACK = 20_000  # every 25th lease statement looks behind the last seq, for jobs that were committed late
_LOOK_BACK_EVERY = 25
_SETTINGS = "SET search_path = prototype; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"

# Puts jobs in: body, place, event.
_ENQUEUE = """
WITH x AS MATERIALIZED (
  SELECT u.id, u.q, u.p, u.m, u.pay, nextval('ready_seq') seq
  FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::smallint[], $5::bytea[]) u(id, q, p, m, pay)
),
b AS (INSERT INTO job (id, queue_id, prio, max_attempts, payload) SELECT id, q, p, m, pay FROM x),
r AS (INSERT INTO ready (queue_id, prio, attempt, max_attempts, seq, id) SELECT q, p, 0, m, seq, id FROM x)
INSERT INTO ev (job_id, kind, attempt) SELECT id, 0, 0 FROM x"""

# Moves the first rows beyond the last seq of each queue and priority from ready to lease.
_LEASE_JOBS = """
WITH want AS MATERIALIZED (SELECT * FROM unnest($1::int[], $2::smallint[], $3::bigint[]) w(q, p, floor)),
cand AS MATERIALIZED (
  SELECT x.* FROM want w CROSS JOIN LATERAL (
    SELECT r.ctid AS tid, r.queue_id, r.prio, r.seq FROM ready r
    WHERE r.queue_id = w.q AND r.prio = w.p AND r.seq > w.floor ORDER BY r.seq LIMIT $4
  ) x
),
pick AS MATERIALIZED (SELECT tid FROM cand ORDER BY prio, seq LIMIT $4),
lk AS MATERIALIZED (SELECT r.ctid AS tid FROM ready r WHERE r.ctid = ANY (ARRAY(SELECT tid FROM pick)) FOR UPDATE SKIP LOCKED),
d AS (DELETE FROM ready r WHERE r.ctid = ANY (ARRAY(SELECT tid FROM lk)) RETURNING *),
l AS (
  INSERT INTO lease (lease_id, id, until, queue_id, worker_id, prio, attempt, max_attempts)
  SELECT nextval('lease_seq'), id, now() + $5::interval, queue_id, $6, prio, attempt + 1, max_attempts FROM d
  RETURNING lease_id, id, attempt
),
e AS (INSERT INTO ev (job_id, kind, attempt, worker_id) SELECT id, 1, attempt, $6 FROM l)
SELECT l.lease_id, l.id, l.attempt, b.payload, d.queue_id, d.prio, d.seq
FROM l JOIN d USING (id) CROSS JOIN LATERAL (SELECT payload FROM job b WHERE b.id = l.id OFFSET 0) b"""

# Ends leases well.
_COMPLETE = """
WITH u AS (DELETE FROM lease WHERE lease_id = ANY ($1::bigint[]) RETURNING lease_id, id, attempt, worker_id),
e AS (INSERT INTO ev (job_id, kind, attempt, worker_id) SELECT id, 2, attempt, worker_id FROM u)
SELECT lease_id FROM u"""

# Moves due rows from delayed to ready.
_PROMOTE = """
WITH c AS MATERIALIZED (
  SELECT ctid FROM delayed WHERE due_at <= now() AND due_at > $1::timestamptz ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED
),
d AS (DELETE FROM delayed WHERE ctid = ANY (ARRAY(SELECT ctid FROM c)) RETURNING *)
INSERT INTO ready (queue_id, prio, attempt, max_attempts, seq, id)
SELECT queue_id, prio, attempt, max_attempts, nextval('ready_seq'), id FROM (SELECT * FROM d ORDER BY due_at) d"""

# Moves the jobs of expired leases back to ready.
_REAP = """
WITH c AS MATERIALIZED (
  SELECT ctid FROM lease WHERE until < now() AND until > $1::timestamptz ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED
),
u AS (DELETE FROM lease WHERE ctid = ANY (ARRAY(SELECT ctid FROM c)) RETURNING *),
r AS (
  INSERT INTO ready (queue_id, prio, attempt, max_attempts, seq, id)
  SELECT queue_id, prio, attempt, max_attempts, nextval('ready_seq'), id FROM u WHERE attempt < max_attempts
),
e AS (
  INSERT INTO ev (job_id, kind, attempt, worker_id)
  SELECT id, CASE WHEN attempt < max_attempts THEN 5 ELSE 4 END, attempt, worker_id FROM u
)
SELECT count(*) FROM u"""


class Prototype:
    """The actors of the prototype over its one set of tables."""

    def __init__(self, database_url: str, load: Load) -> None:
        self._database_url = database_url
        self._load = load
        self._payloads = [load.input_json(number).encode() for number in range(load.batch)]
        self._next_id = int(time.time() * 1000) << 22
        self._floors = {(queue, priority): 0 for queue in _QUEUES for priority in _PRIORITIES}
        self._enqueued = 0
        self._completed = 0
        self._progress = asyncio.Event()

    async def open(self) -> None:
        """Makes the tables anew, connects and prepares."""
        async with asyncpg.create_pool(self._database_url, min_size=1, max_size=1) as pool:
            await pool.execute(Path(__file__).with_name("prototype.sql").read_text())
        self._enqueuing = await (await self._connect()).prepare(_ENQUEUE)
        self._leasing = []
        for _ in range(STREAMS):
            connection = await self._connect()
            self._leasing.append((await connection.prepare(_LEASE_JOBS), await connection.prepare(_COMPLETE)))
        self._upkeep = asyncio.create_task(self._keep(await self._connect()))

    async def fill(self, backlog: int | None = None) -> None:
        """Enqueues all jobs of the load, never more than `backlog` ahead of what is done."""
        batch = self._load.batch
        priorities = len(_PRIORITIES)
        for _ in range(self._load.jobs // batch):
            while backlog is not None and self._enqueued - self._completed > backlog:
                self._progress.clear()
                await self._progress.wait()
            ids = range(self._next_id, self._next_id + batch)
            self._next_id += batch
            await self._enqueuing.fetch(
                list(ids),
                [1 + one % len(_QUEUES) for one in ids],
                [one // len(_QUEUES) % priorities for one in ids],
                [MAX_ATTEMPTS] * batch,
                self._payloads,
            )
            self._enqueued += batch

    async def drain(self) -> None:
        """Leases and completes as many jobs as the load has, by workers side by side."""
        until = self._completed + self._load.jobs
        await asyncio.gather(*(self._work(number, until) for number in range(STREAMS)))

    async def close(self) -> None:
        """Ends the upkeep; connections end with the process."""
        self._upkeep.cancel()
        await asyncio.gather(self._upkeep, return_exceptions=True)

    async def _work(self, number: int, until: int) -> None:
        """One worker, on queues of its own; leases a batch, then completes it."""
        lease, complete = self._leasing[number]
        places = [place for place in self._floors if place[0] % STREAMS == number]
        queues, priorities = [queue for queue, _ in places], [priority for _, priority in places]
        turn = 0
        while self._completed < until:
            turn += 1
            back = _LOOK_BACK if turn % _LOOK_BACK_EVERY == 0 else 0
            floors = [max(0, self._floors[place] - back) for place in places]
            rows = await lease.fetch(queues, priorities, floors, self._load.batch, _LEASE, number)
            if not rows:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            for row in rows:
                place = (row[4], row[5])
                self._floors[place] = max(self._floors[place], row[6])
            ended = await complete.fetch([row[0] for row in rows])
            self._completed += len(ended)
            self._progress.set()

    async def _keep(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Looks for due and for expired rows ten times a second."""
        promote_from = reap_from = datetime(2000, 1, 1, tzinfo=UTC)
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            now = await connection.fetchval("SELECT now()")
            await connection.execute(_PROMOTE, promote_from, _UPKEEP_ROWS)
            await connection.fetchval(_REAP, reap_from, _UPKEEP_ROWS)
            promote_from = reap_from = now - _UPKEEP_OVERLAP

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(self._database_url)
        await connection.execute(_SETTINGS)
        return connection


async def measure(task: Task) -> list[Row]:
    """The figures asked for, in this order: enqueue and burn-down of the same jobs, or both at once as mixed."""
    load = task.load
    rows: list[Row] = []
    prototype = Prototype(task.site.database_url, load)
    await prototype.open()
    meter = Meter(replace(task.site, broker_pid=0))
    if Figure.ENQUEUE in task.figures:
        await prototype.fill()
        rows.append(Row(Figure.ENQUEUE, "prototype", load.setting, meter.stop(load.jobs)))
    if Figure.BURN_DOWN in task.figures:
        meter.start()
        await prototype.drain()
        rows.append(Row(Figure.BURN_DOWN, "prototype", load.setting, meter.stop(load.jobs)))
    if Figure.MIXED in task.figures:
        meter.start()
        await asyncio.gather(prototype.fill(_BACKLOG), prototype.drain())
        rows.append(Row(Figure.MIXED, "prototype", load.setting, meter.stop(load.jobs)))
    await prototype.close()
    return rows


if __name__ == "__main__":
    tell(uvloop.run(measure(Task.from_command_line())))
