-- Playbooks and their executions. An execution's row is the lock under which its steps advance; its steps' results lie in event_log.

CREATE TABLE noetl.playbook (
  path text COLLATE "C" NOT NULL,
  version integer NOT NULL,
  name text NOT NULL,
  body text NOT NULL, -- YAML, as registered
  created_at timestamptz NOT NULL,
  PRIMARY KEY (path, version)
);

CREATE TABLE noetl.execution (
  execution_id bigint PRIMARY KEY,
  path text COLLATE "C" NOT NULL,
  version integer NOT NULL,
  status text NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'cancelled')),
  workload text NOT NULL, -- JSON object: the playbook's, overlaid with the start's
  given text NOT NULL, -- JSON object: the start's own, which a repeated start is compared with
  idempotency_key text,
  finished_at timestamptz,
  result text, -- JSON
  failed_step text,
  failure text -- JSON: message, type, status_code
);
CREATE UNIQUE INDEX execution_key ON noetl.execution (path, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX execution_path ON noetl.execution (path, execution_id DESC);
CREATE INDEX execution_running ON noetl.execution (execution_id) WHERE status = 'running';

-- A step that was started: once per execution, whatever two brokers do. Written once.
CREATE TABLE noetl.execution_step (
  execution_id bigint NOT NULL,
  step text NOT NULL,
  job_id bigint NOT NULL, -- 0: a router, nothing ran
  PRIMARY KEY (execution_id, step)
);

COMMENT ON TABLE noetl.execution IS 'one run of a playbook';
COMMENT ON TABLE noetl.execution_step IS 'the steps that a run has started';
