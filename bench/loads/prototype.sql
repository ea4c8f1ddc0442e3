-- The schema of the lanes prototype as it was measured before the product was built (2026-11): a yardstick, frozen. Not the product's.
DROP SCHEMA IF EXISTS prototype CASCADE;
CREATE SCHEMA prototype;
SET search_path = prototype;

CREATE SEQUENCE ready_seq AS bigint CACHE 1;
CREATE SEQUENCE lease_seq AS bigint CACHE 1;

-- Bodies, written once; the high bits of an id are its milliseconds, so ranges of ids are ranges of time.
CREATE TABLE job (
  id bigint NOT NULL, queue_id int NOT NULL, prio smallint NOT NULL, max_attempts smallint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), payload bytea NOT NULL, headers jsonb, PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE TABLE job_p0 PARTITION OF job FOR VALUES FROM (0) TO (9223372036854775807)
  WITH (autovacuum_vacuum_insert_scale_factor = 0.5);

-- One row for each transition: kind 0 enqueued, 1 started, 2 completed.
CREATE TABLE ev (
  job_id bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), worker_id int, kind smallint NOT NULL, attempt smallint NOT NULL, detail text
) PARTITION BY RANGE (job_id);
CREATE TABLE ev_p0 PARTITION OF ev FOR VALUES FROM (0) TO (9223372036854775807)
  WITH (autovacuum_vacuum_insert_scale_factor = 0.5);
CREATE INDEX ev_p0_job ON ev_p0 USING brin (job_id int8_minmax_multi_ops) WITH (pages_per_range = 16, autosummarize = on);

-- The lanes: rows are put in and taken out, never updated.
CREATE TABLE ready (
  queue_id int NOT NULL, prio smallint NOT NULL, attempt smallint NOT NULL, max_attempts smallint NOT NULL, seq bigint NOT NULL,
  id bigint NOT NULL, PRIMARY KEY (queue_id, prio, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_threshold = 2000000000);
CREATE TABLE delayed (
  due_at timestamptz NOT NULL, id bigint NOT NULL, queue_id int NOT NULL, prio smallint NOT NULL, attempt smallint NOT NULL,
  max_attempts smallint NOT NULL, PRIMARY KEY (due_at, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_threshold = 2000000000);
CREATE TABLE lease (
  lease_id bigint PRIMARY KEY, id bigint NOT NULL, until timestamptz NOT NULL, queue_id int NOT NULL, worker_id int NOT NULL,
  prio smallint NOT NULL, attempt smallint NOT NULL, max_attempts smallint NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_threshold = 2000000000);
CREATE INDEX lease_until ON lease (until);
