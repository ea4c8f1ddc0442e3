-- Retention. What is older than its age goes by whole partitions of job and event_log: what must stay of them is copied into a new
-- partition `kept` for all ids from 1 up to the end of the oldest day, and takes their place in one short transaction.
-- So there is one partition per day of the age, and one more. broker/store/retention.py says what stays, and in which order this is run.

-- When events happened, for who looks for those of some time: keys to be freed, ends to be kept. A block range index costs their writer
-- less than can be measured (under 0.5 of 20 microseconds for a job's three events, PostgreSQL 18, 2026-11).
CREATE INDEX event_log_age ON noetl.event_log USING brin (event_id) WITH (autosummarize = on);

-- Events of executions themselves are deleted row by row: their room must be free before a fifth of them is dead.
ALTER TABLE noetl.event_log_executions SET (autovacuum_vacuum_scale_factor = 0.02);

-- One row: how far upkeep has come.
CREATE TABLE noetl.upkeep (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  keys_freed_until bigint NOT NULL -- keys of jobs whose end is an event below this id are freed
);
INSERT INTO noetl.upkeep (keys_freed_until)
  SELECT coalesce(min(job_id), noetl.id_at(noetl.clock() - interval '24 hours')) FROM noetl.idempotency;

-- Executions whose key is to be freed.
CREATE INDEX execution_key_kept ON noetl.execution (finished_at) WHERE idempotency_key IS NOT NULL;

-- The last day on which a queue was put to use: a name goes when none of its jobs is left.
ALTER TABLE noetl.queue_name ADD COLUMN used_on date NOT NULL DEFAULT (noetl.clock() AT TIME ZONE 'UTC')::date;

-- Partitions of job or event_log with their bounds, oldest first.
CREATE FUNCTION noetl.partitions(parent regclass) RETURNS TABLE (name text, lower_bound bigint, upper_bound bigint) LANGUAGE sql STABLE
  AS $$
  SELECT c.relname::text, bounds[1]::bigint, bounds[2]::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), $r$FROM \('?(\d+)'?\) TO \('?(\d+)'?\)$r$) bounds
  WHERE i.inhparent = parent ORDER BY bounds[1]::bigint
$$;

-- Events that were written to a partition while what stays of it is being copied.
CREATE TABLE noetl.event_late (LIKE noetl.event_log);
CREATE FUNCTION noetl.record_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO noetl.event_late SELECT NEW.*;
  RETURN NULL;
END $$;

-- Makes the tables that what stays of all ids below `below` is to be copied into, and has late events recorded from now on. The lock
-- waits for who writes events of such old jobs, and they for it; readers do not. Triggers that an earlier try has left are as good.
CREATE FUNCTION noetl.start_keeping(day text, below bigint) RETURNS void LANGUAGE plpgsql SET lock_timeout = '75ms' AS $$
DECLARE
  parent text;
  partition text;
BEGIN
  FOREACH parent IN ARRAY ARRAY['job', 'event_log'] LOOP
    EXECUTE format('CREATE TABLE noetl.%I (LIKE noetl.%I INCLUDING DEFAULTS INCLUDING INDEXES,
      CONSTRAINT bounds CHECK (job_id >= 1 AND job_id < %s))', parent || '_kept_' || day, parent, below);
  END LOOP;
  EXECUTE format('CREATE UNIQUE INDEX %I ON noetl.%I (event_id)', 'event_log_kept_' || day || '_once', 'event_log_kept_' || day);
  DELETE FROM noetl.event_late;
  FOR partition IN SELECT name FROM noetl.partitions('noetl.event_log') WHERE lower_bound >= 1 AND upper_bound <= below LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER late AFTER INSERT ON noetl.%I FOR EACH ROW EXECUTE FUNCTION noetl.record_late()', partition);
  END LOOP;
END $$;

-- Brings the late events over; how many there were. A job that was not to stay, as it had ended long ago, and has moved again
-- stays with all that it has. An event that the copy has seen as well is not doubled.
CREATE FUNCTION noetl.keep_late(day text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  moved bigint;
BEGIN
  EXECUTE format($q$
    WITH late AS MATERIALIZED (SELECT ctid AS place, * FROM noetl.event_late ORDER BY event_id LIMIT 1000),
    taken AS (DELETE FROM noetl.event_late WHERE ctid = ANY(ARRAY(SELECT place FROM late))),
    returned AS (
      INSERT INTO noetl.%1$I
      SELECT j.* FROM (SELECT DISTINCT job_id FROM late) l
      CROSS JOIN LATERAL (SELECT * FROM noetl.job WHERE job.job_id = l.job_id OFFSET 0) j
      ON CONFLICT DO NOTHING RETURNING job_id
    ),
    history AS (
      INSERT INTO noetl.%2$I
      SELECT e.* FROM returned r CROSS JOIN LATERAL (SELECT * FROM noetl.event_log WHERE event_log.job_id = r.job_id OFFSET 0) e
      ON CONFLICT (event_id) DO NOTHING
    ),
    added AS (
      INSERT INTO noetl.%2$I
      SELECT event_id, job_id, execution_id, lease_id, kind, attempt, max_attempts, step, worker_id, detail FROM late
      WHERE job_id NOT IN (SELECT job_id FROM returned)
      ON CONFLICT (event_id) DO NOTHING
    )
    SELECT count(*) FROM late$q$, 'job_kept_' || day, 'event_log_kept_' || day) INTO moved;
  RETURN moved;
END $$;

-- Puts the copies in the place of all partitions below `below`, whose tables become gone_…, in no use any more. Everybody waits
-- while this waits and runs: it gives up early, and leaves all as it was.
CREATE FUNCTION noetl.swap_kept(day text, below bigint) RETURNS void LANGUAGE plpgsql SET lock_timeout = '75ms' AS $$
DECLARE
  parent text;
  partition text;
  kept text;
BEGIN
  LOCK TABLE ONLY noetl.job, ONLY noetl.event_log IN ACCESS EXCLUSIVE MODE;
  WHILE noetl.keep_late(day) > 0 LOOP
  END LOOP;
  EXECUTE format('DROP INDEX noetl.%I', 'event_log_kept_' || day || '_once');
  FOREACH parent IN ARRAY ARRAY['job', 'event_log'] LOOP
    FOR partition IN SELECT name FROM noetl.partitions(('noetl.' || parent)::regclass) WHERE lower_bound >= 1 AND upper_bound <= below LOOP
      EXECUTE format('ALTER TABLE noetl.%I DETACH PARTITION noetl.%I', parent, partition);
      EXECUTE format('ALTER TABLE noetl.%I RENAME TO %I', partition, 'gone_' || partition);
    END LOOP;
    kept := parent || '_kept_' || day;
    EXECUTE format('ALTER TABLE noetl.%I ATTACH PARTITION noetl.%I FOR VALUES FROM (1) TO (%s)', parent, kept, below);
    EXECUTE format('ALTER TABLE noetl.%I DROP CONSTRAINT bounds', kept);
  END LOOP;
END $$;

-- Brings the block range summaries of events up to date; how many ranges there were to summarize. A partition that autovacuum is at is
-- left out: waiting for it for a second would break it off, each time anew.
CREATE OR REPLACE FUNCTION noetl.summarize_events() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = noetl, pg_catalog SET lock_timeout = '20ms' AS $$
DECLARE
  index_of_partition regclass;
  summarized bigint := 0;
BEGIN
  FOR index_of_partition IN
    SELECT i.indexrelid FROM pg_inherits h JOIN pg_index i ON i.indrelid = h.inhrelid
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE h.inhparent = 'noetl.event_log'::regclass AND a.amname = 'brin'
  LOOP
    BEGIN
      summarized := summarized + brin_summarize_new_values(index_of_partition);
    EXCEPTION WHEN lock_not_available THEN
    END;
  END LOOP;
  RETURN summarized;
END $$;

-- Partitions ahead come without a wait of anybody: what they lock is locked by no reader or writer.
ALTER FUNCTION noetl.ensure_partitions(integer) SET lock_timeout = '100ms';

COMMENT ON TABLE noetl.upkeep IS 'how far upkeep has come';
COMMENT ON TABLE noetl.event_late IS 'events to be carried over while a partition is replaced; empty at other times';
