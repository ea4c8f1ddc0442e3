-- The lanes. A job's status is where its row lies: `ready`, `delayed` or `lease`; in none of them it has ended, done or dead by its
-- latest terminal event. Lanes are narrow and only ever INSERTed and DELETEd (a lease's expiry aside), so that they stay fast while
-- some session holds an old snapshot. `job` and `event_log` are written once and dropped by partition.

CREATE SCHEMA IF NOT EXISTS noetl;

-- Every instant of every statement comes from here. Only tests replace it, by one with an offset.
CREATE FUNCTION noetl.clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT statement_timestamp() $$;

-- Ids order by time: milliseconds since 2025-01-01 UTC, shifted left by 22 bits, plus the low 22 bits of this sequence.
CREATE SEQUENCE noetl.id_seq AS bigint;

-- The lowest id of an instant.
CREATE FUNCTION noetl.id_at(instant timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT ((extract(epoch FROM instant) * 1000)::bigint - 1735689600000) << 22 $$;

-- The instant of an id, to the millisecond.
CREATE FUNCTION noetl.time_of(id bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT to_timestamp(((id >> 22) + 1735689600000) / 1000.0) $$;

CREATE FUNCTION noetl.next_id() RETURNS bigint LANGUAGE sql VOLATILE
  AS $$ SELECT noetl.id_at(noetl.clock()) | (nextval('noetl.id_seq') & 4194303) $$;

-- One row: what all brokers of this database share.
CREATE TABLE noetl.installation (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  token_key bytea NOT NULL -- signs lease tokens, so that none can be guessed
);
INSERT INTO noetl.installation (token_key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Names of queues ever used, so that an empty queue is still listed.
CREATE TABLE noetl.queue_name (
  name text COLLATE "C" PRIMARY KEY
);

-- Policies in force, each text once; a job names its own by number.
CREATE TABLE noetl.retry_policy (
  policy_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  body text NOT NULL UNIQUE -- canonical JSON
);

-- Cold: what a job is. Written once, read when it is leased, dropped with its partition.
CREATE TABLE noetl.job (
  job_id bigint NOT NULL,
  execution_id bigint, -- null: belongs to no playbook run
  policy_id integer, -- null: one attempt
  priority smallint NOT NULL,
  max_attempts smallint NOT NULL,
  queue text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  step text, -- the playbook step
  input text NOT NULL, -- a JSON object
  attempt_timeout_seconds float8,
  idempotency_key text,
  dependency text,
  traceparent text,
  labels jsonb,
  PRIMARY KEY (job_id)
) PARTITION BY RANGE (job_id);
CREATE INDEX job_execution ON noetl.job (execution_id, job_id) WHERE execution_id IS NOT NULL;

-- Waiting for a worker. A fresh job's seq is its own id; one that comes back gets a new seq, at the tail of its priority.
CREATE TABLE noetl.ready (
  seq bigint NOT NULL,
  job_id bigint NOT NULL,
  priority smallint NOT NULL,
  attempts smallint NOT NULL, -- leases granted so far
  returns smallint NOT NULL, -- deliveries in a row that came back unreceived
  queue text COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX ready_order ON noetl.ready (queue, priority DESC, seq);
CREATE INDEX ready_returned ON noetl.ready (job_id) WHERE seq <> job_id;

-- Waiting for a time: scheduled (attempts = 0) or to be retried.
CREATE TABLE noetl.delayed (
  due_at timestamptz NOT NULL,
  job_id bigint NOT NULL,
  priority smallint NOT NULL,
  attempts smallint NOT NULL,
  queue text COLLATE "C" NOT NULL,
  PRIMARY KEY (due_at, job_id)
);
CREATE INDEX delayed_job ON noetl.delayed (job_id);

-- With a worker. The one UPDATE of a hot row: expires_at, by heartbeats.
CREATE TABLE noetl.lease (
  lease_id bigint PRIMARY KEY,
  job_id bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  timeout_at timestamptz, -- grant + attempt_timeout: expires_at never passes it
  lease_seconds float4 NOT NULL, -- what the stream asked for, the default of Extend
  priority smallint NOT NULL,
  attempt smallint NOT NULL,
  returns smallint NOT NULL,
  queue text COLLATE "C" NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX lease_expiry ON noetl.lease (expires_at);
CREATE INDEX lease_job ON noetl.lease (job_id);

-- One row per transition, committed with it; never updated. Partitioned by job_id with the bounds of `job`; events of an execution
-- itself have job_id 0. What the reader sees is the view noetl.event.
CREATE TABLE noetl.event_log (
  event_id bigint NOT NULL,
  job_id bigint NOT NULL,
  execution_id bigint,
  lease_id bigint, -- of the events that end a lease: how a repeated call is recognised
  kind smallint NOT NULL, -- an index of noetl.event_type()
  attempt smallint NOT NULL,
  max_attempts smallint,
  step text,
  worker_id text,
  detail text -- JSON, what semantics lists for the kind where columns do not hold it
) PARTITION BY RANGE (job_id);
-- The history of one job costs its writer nothing: a block range index, as ids rise with time.
CREATE INDEX event_log_job ON noetl.event_log USING brin (job_id int8_minmax_multi_ops) WITH (pages_per_range = 16, autosummarize = on);
-- Whatever a plain success does not write: failures, verdicts, returns.
CREATE INDEX event_log_trouble ON noetl.event_log (job_id, event_id) WHERE kind >= 4;
CREATE INDEX event_log_execution ON noetl.event_log (execution_id, event_id) WHERE execution_id IS NOT NULL;

CREATE FUNCTION noetl.event_type(kind smallint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  AS $$ SELECT (ARRAY['job_enqueued', 'action_started', 'action_completed', 'action_error', 'action_retry', 'job_dead',
    'lease_released', 'job_redriven', 'job_rescheduled', 'execution_started', 'step_started', 'step_completed', 'step_failed',
    'execution_completed', 'execution_failed', 'execution_cancelled'])[kind] $$;

-- Idempotency keys, kept until 24 h after their job has ended.
CREATE TABLE noetl.idempotency (
  queue text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  job_id bigint NOT NULL,
  PRIMARY KEY (queue, key)
);
CREATE INDEX idempotency_job ON noetl.idempotency (job_id);

-- Aborts a statement that lost a race for an idempotency key: nothing of it stays, and the broker runs it again.
CREATE FUNCTION noetl.refuse_race(raced bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF raced <> 0 THEN
    RAISE EXCEPTION 'another transaction took % of the idempotency keys', raced USING ERRCODE = 'serialization_failure';
  END IF;
  RETURN true;
END $$;

-- Leases whose job was cancelled while it ran.
CREATE TABLE noetl.cancellation (
  lease_id bigint PRIMARY KEY,
  reason text NOT NULL
);

-- What an attempt saved with Extend for the next one.
CREATE TABLE noetl.checkpoint (
  job_id bigint PRIMARY KEY,
  body text NOT NULL
);

ALTER TABLE noetl.ready SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 2000000000, vacuum_truncate = off);
ALTER TABLE noetl.delayed SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 2000000000, vacuum_truncate = off);
ALTER TABLE noetl.lease SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 2000000000, vacuum_truncate = off);

-- Events of executions themselves stay in one partition: they carry no job.
CREATE TABLE noetl.event_log_executions PARTITION OF noetl.event_log FOR VALUES FROM (0) TO (1);

-- Makes the daily partitions of job and event_log from yesterday until `ahead` days from now, where they do not exist. Created apart
-- and then attached, under a short lock_timeout: readers and writers never queue behind it; the caller repeats on lock_not_available.
CREATE FUNCTION noetl.ensure_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = noetl, pg_catalog SET lock_timeout = '500ms' AS $$
DECLARE
  day timestamptz;
  suffix text;
  lower_bound bigint;
  upper_bound bigint;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('noetl.ensure_partitions'));
  FOR offset_days IN -1 .. ahead LOOP
    day := date_trunc('day', noetl.clock() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + offset_days * interval '1 day';
    suffix := to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
    CONTINUE WHEN to_regclass('noetl.job_' || suffix) IS NOT NULL;
    lower_bound := noetl.id_at(day);
    upper_bound := noetl.id_at(day + interval '1 day');
    EXECUTE format('CREATE TABLE noetl.%I (LIKE noetl.job INCLUDING DEFAULTS INCLUDING INDEXES)
      WITH (autovacuum_vacuum_insert_scale_factor = 0.5)', 'job_' || suffix);
    EXECUTE format('ALTER TABLE noetl.job ATTACH PARTITION noetl.%I FOR VALUES FROM (%s) TO (%s)',
      'job_' || suffix, lower_bound, upper_bound);
    EXECUTE format('CREATE TABLE noetl.%I (LIKE noetl.event_log INCLUDING DEFAULTS INCLUDING INDEXES)
      WITH (autovacuum_vacuum_insert_scale_factor = 0.5)', 'event_log_' || suffix);
    EXECUTE format('ALTER TABLE noetl.event_log ATTACH PARTITION noetl.%I FOR VALUES FROM (%s) TO (%s)',
      'event_log_' || suffix, lower_bound, upper_bound);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
SELECT noetl.ensure_partitions(7);

-- Brings the block range summaries of events up to date; run by its owner, as only an owner may.
CREATE FUNCTION noetl.summarize_events() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = noetl, pg_catalog AS $$
  SELECT sum(brin_summarize_new_values(i.indexrelid::regclass)) FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
  JOIN pg_inherits h ON h.inhrelid = i.indrelid
  WHERE h.inhparent = 'noetl.event_log'::regclass AND a.amname = 'brin' AND c.relkind = 'i'
$$;

-- Where a job's row lies, for a reader: status, attempts, when it may run, until when it is leased. No row: it has ended.
CREATE FUNCTION noetl.lane_of(wanted_job bigint, job_queue text, job_priority smallint)
  RETURNS TABLE (status text, attempts smallint, available_at timestamptz, lease_expires_at timestamptz) LANGUAGE sql STABLE ROWS 1 AS $$
  SELECT 'leased', attempt, NULL::timestamptz, expires_at FROM noetl.lease WHERE job_id = wanted_job
  UNION ALL
  SELECT CASE WHEN attempts > 0 THEN 'retry' ELSE 'queued' END, attempts, noetl.time_of(seq), NULL FROM noetl.ready
    WHERE queue = job_queue AND priority = job_priority AND seq = wanted_job AND job_id = wanted_job
  UNION ALL
  SELECT CASE WHEN attempts > 0 THEN 'retry' ELSE 'queued' END, attempts, noetl.time_of(seq), NULL FROM noetl.ready
    WHERE job_id = wanted_job AND seq <> job_id
  UNION ALL
  SELECT CASE WHEN attempts > 0 THEN 'retry' ELSE 'queued' END, attempts, due_at, NULL FROM noetl.delayed WHERE job_id = wanted_job
$$;

-- The latest terminal event of a job: how, when and after how many attempts it ended.
CREATE FUNCTION noetl.end_of(wanted_job bigint)
  RETURNS TABLE (status text, attempts smallint, finished_at timestamptz, detail text) LANGUAGE sql STABLE ROWS 1 AS $$
  SELECT CASE kind WHEN 3 THEN 'done' ELSE 'dead' END, attempt, noetl.time_of(event_id), detail FROM noetl.event_log
    WHERE job_id = wanted_job AND kind IN (3, 6) ORDER BY event_id DESC LIMIT 1
$$;

CREATE VIEW noetl.queue AS
SELECT j.job_id AS queue_id, j.execution_id, j.step AS node_name, j.queue, j.kind,
  coalesce(lane.status, ended.status) AS status,
  j.priority, coalesce(lane.attempts, ended.attempts) AS attempts, j.max_attempts,
  lane.available_at, lane.lease_expires_at AS lease_until,
  noetl.time_of(j.job_id) AS created_at, ended.finished_at, j.input::json AS input
FROM noetl.job j
LEFT JOIN LATERAL noetl.lane_of(j.job_id, j.queue, j.priority) lane ON true
LEFT JOIN LATERAL noetl.end_of(j.job_id) ended ON lane.status IS NULL;

CREATE VIEW noetl.event AS
SELECT event_id, job_id, execution_id, noetl.event_type(kind) AS event_type, step AS node_name, attempt, worker_id,
  noetl.time_of(event_id) AS created_at,
  CASE kind
    WHEN 2 THEN json_build_object('attempt', attempt, 'max_attempts', max_attempts, 'is_retry', attempt > 1, 'worker_id', worker_id)
    ELSE detail::json
  END AS result
FROM noetl.event_log;

COMMENT ON TABLE noetl.job IS 'what a job is; written once';
COMMENT ON TABLE noetl.ready IS 'lane: jobs waiting for a worker';
COMMENT ON TABLE noetl.delayed IS 'lane: jobs waiting for a time';
COMMENT ON TABLE noetl.lease IS 'lane: jobs with a worker';
COMMENT ON TABLE noetl.event_log IS 'every transition, in the transaction that made it; read it through noetl.event';
COMMENT ON VIEW noetl.queue IS 'every job with its status';
COMMENT ON VIEW noetl.event IS 'every transition, as people read it';
