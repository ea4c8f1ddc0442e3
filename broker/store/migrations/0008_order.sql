-- The events that a query finds come in the order in which things happened, also where it does not ask for an order. Their place in the
-- table is not that order: each of the broker's connections fills pages of its own.
CREATE OR REPLACE VIEW noetl.event AS
SELECT event_id, job_id, execution_id, noetl.event_type(kind) AS event_type, step AS node_name, attempt, worker_id,
  noetl.time_of(event_id) AS created_at,
  CASE kind
    WHEN 2 THEN json_build_object('attempt', attempt, 'max_attempts', max_attempts, 'is_retry', attempt > 1, 'worker_id', worker_id)
    ELSE detail::json
  END AS result
FROM noetl.event_log
ORDER BY event_id;
