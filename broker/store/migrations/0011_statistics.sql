-- Days are analyzed when they have grown by half, not by a tenth. No plan hangs on their statistics, only the estimate of dead jobs where
-- there are many, which goes by the size of their index as it is. A sample of 30 000 rows costs as much for a small day as for a large
-- one: 0.1 s of CPU time, ten times for the first 400 000 jobs of a day (PostgreSQL 18, 2026-11).

-- As before, with that setting.
CREATE OR REPLACE FUNCTION noetl.ensure_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = noetl, pg_catalog SET lock_timeout = '100ms' AS $$
DECLARE
  day timestamptz;
  suffix text;
  parent text;
  made integer := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('noetl.ensure_partitions'));
  FOR offset_days IN -1 .. ahead LOOP
    day := date_trunc('day', noetl.clock() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + offset_days * interval '1 day';
    suffix := to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
    CONTINUE WHEN to_regclass('noetl.job_' || suffix) IS NOT NULL;
    FOREACH parent IN ARRAY ARRAY['job', 'event_log'] LOOP
      EXECUTE format('CREATE TABLE noetl.%I (LIKE noetl.%I INCLUDING DEFAULTS INCLUDING INDEXES)
        WITH (autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 0.5)', parent || '_' || suffix, parent);
      EXECUTE format('ALTER TABLE noetl.%I ATTACH PARTITION noetl.%I FOR VALUES FROM (%s) TO (%s)',
        parent, parent || '_' || suffix, noetl.id_at(day), noetl.id_at(day + interval '1 day'));
    END LOOP;
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

DO $$
DECLARE
  partition text;
BEGIN
  FOR partition IN
    SELECT p.name FROM unnest(ARRAY['noetl.job', 'noetl.event_log']::regclass[]) parent CROSS JOIN LATERAL noetl.partitions(parent) p
    WHERE p.lower_bound > 1
  LOOP
    EXECUTE format('ALTER TABLE IF EXISTS noetl.%I SET (autovacuum_analyze_scale_factor = 0.5)', partition);
  END LOOP;
END $$;
