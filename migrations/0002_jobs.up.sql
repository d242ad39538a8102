-- The jobs table, its companions, and the functions of the SQL contract (DESIGN.md).
-- Locks: ACCESS EXCLUSIVE on jobs where the table exists already (it is adopted: columns and constraints are added,
-- which reads the whole table once), none otherwise.

-- An existing jobs table is adopted whole or not at all: what does not fit is listed, nothing is changed.
DO $migration$
DECLARE
  clashes text[] := '{}';
  wanted record;
  found record;
  nulls boolean;
  jobs oid := pg_catalog.to_regclass('{schema}.jobs');
BEGIN
  IF jobs IS NULL THEN
    RETURN;
  END IF;
  IF (SELECT relkind FROM pg_catalog.pg_class WHERE oid = jobs) <> 'r' THEN
    RAISE EXCEPTION 'jobs exists and is not an ordinary table'
      USING HINT = 'Rename it, or install pgbell in a schema of its own (--schema).';
  END IF;
  FOR wanted IN
    SELECT * FROM (VALUES
      ('id', 'uuid', true), ('type', 'text', true), ('payload', 'jsonb', true), ('status', '{schema}.job_status', true),
      ('priority', 'integer', true), ('attempts', 'integer', true), ('max_attempts', 'integer', true),
      ('error', 'text', false), ('created_at', 'timestamptz', true), ('updated_at', 'timestamptz', true),
      ('scheduled_for', 'timestamptz', true), ('completed_at', 'timestamptz', false),
      ('started_at', 'timestamptz', false), ('lease', 'uuid', false), ('worker_id', 'integer', false),
      ('held_until', 'timestamptz', false), ('crashes', 'integer', true), ('unique_key', 'text', false),
      ('result', 'jsonb', false), ('timeout', 'interval', false), ('metadata', 'jsonb', false),
      ('cancel_requested_at', 'timestamptz', false)
    ) AS w(name, type, required)
  LOOP
    SELECT a.atttypid INTO found FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = jobs AND a.attname = wanted.name AND NOT a.attisdropped;
    IF NOT FOUND THEN
      IF wanted.name IN ('id', 'type', 'payload', 'status') THEN
        clashes := clashes || format('column %s is missing', wanted.name);
      END IF;
    ELSIF found.atttypid <> wanted.type::regtype THEN
      clashes := clashes || format('column %s is %s, not %s', wanted.name, format_type(found.atttypid, NULL), wanted.type);
    ELSIF wanted.required THEN
      EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NULL)', jobs::regclass, wanted.name) INTO nulls;
      IF nulls THEN
        clashes := clashes || format('column %s holds NULLs (UPDATE jobs SET %1$s = ... WHERE %1$s IS NULL)', wanted.name);
      END IF;
    END IF;
  END LOOP;
  FOR found IN
    SELECT a.attname FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = jobs AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND d.oid IS NULL AND a.attidentity = ''
      AND a.attname NOT IN ('id', 'type', 'payload', 'status', 'priority', 'attempts', 'max_attempts', 'created_at', 'updated_at',
                            'scheduled_for', 'crashes')
  LOOP
    clashes := clashes || format('column %s is NOT NULL without a default, so that enqueue_job could not insert', found.attname);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                 WHERE i.indrelid = jobs AND i.indisprimary AND i.indnkeyatts = 1 AND a.attname = 'id') THEN
    clashes := clashes || 'id is not the primary key'::text;
  END IF;
  IF clashes <> '{}' THEN
    RAISE EXCEPTION 'the existing table jobs can''t be adopted: %', array_to_string(clashes, '; ')
      USING HINT = 'Mend what is listed, rename the table, or install pgbell in a schema of its own (--schema). Nothing was changed.';
  END IF;
END
$migration$;

CREATE TABLE IF NOT EXISTS {schema}.jobs (
  id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  type          text NOT NULL,
  payload       jsonb NOT NULL DEFAULT '{}',
  status        {schema}.job_status NOT NULL DEFAULT 'pending',
  priority      int NOT NULL DEFAULT 0,
  attempts      int NOT NULL DEFAULT 0,
  max_attempts  int NOT NULL DEFAULT 3,
  error         text,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  scheduled_for timestamptz NOT NULL DEFAULT now(),
  completed_at  timestamptz
);

ALTER TABLE {schema}.jobs
  ADD COLUMN IF NOT EXISTS priority      int NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS attempts      int NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS max_attempts  int NOT NULL DEFAULT 3,
  ADD COLUMN IF NOT EXISTS error         text,
  ADD COLUMN IF NOT EXISTS created_at    timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN IF NOT EXISTS updated_at    timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN IF NOT EXISTS scheduled_for timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN IF NOT EXISTS completed_at  timestamptz,
  ADD COLUMN IF NOT EXISTS started_at    timestamptz,
  ADD COLUMN IF NOT EXISTS lease         uuid,
  ADD COLUMN IF NOT EXISTS worker_id     int,
  ADD COLUMN IF NOT EXISTS held_until    timestamptz,
  ADD COLUMN IF NOT EXISTS crashes       int NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS unique_key    text,
  ADD COLUMN IF NOT EXISTS result        jsonb,
  ADD COLUMN IF NOT EXISTS timeout       interval,
  ADD COLUMN IF NOT EXISTS metadata      jsonb,
  ADD COLUMN IF NOT EXISTS cancel_requested_at timestamptz;

-- A no-op on a table made above; on an adopted one, the recipe's looser columns take the contract's form.
ALTER TABLE {schema}.jobs
  ALTER COLUMN id SET DEFAULT gen_random_uuid(),
  ALTER COLUMN payload SET DEFAULT '{}', ALTER COLUMN payload SET NOT NULL, ALTER COLUMN type SET NOT NULL,
  ALTER COLUMN status SET DEFAULT 'pending', ALTER COLUMN status SET NOT NULL,
  ALTER COLUMN priority SET DEFAULT 0, ALTER COLUMN priority SET NOT NULL,
  ALTER COLUMN attempts SET DEFAULT 0, ALTER COLUMN attempts SET NOT NULL,
  ALTER COLUMN max_attempts SET DEFAULT 3, ALTER COLUMN max_attempts SET NOT NULL,
  ALTER COLUMN created_at SET DEFAULT now(), ALTER COLUMN created_at SET NOT NULL,
  ALTER COLUMN updated_at SET DEFAULT now(), ALTER COLUMN updated_at SET NOT NULL,
  ALTER COLUMN scheduled_for SET DEFAULT now(), ALTER COLUMN scheduled_for SET NOT NULL;

-- The names are the error messages that an application sees. None forbids what a worker written by hand may write
-- (attempts beyond max_attempts).
ALTER TABLE {schema}.jobs
  ADD CONSTRAINT jobs_type_has_1_to_200_characters CHECK (char_length(type) BETWEEN 1 AND 200),
  ADD CONSTRAINT jobs_attempts_is_not_negative CHECK (attempts >= 0),
  ADD CONSTRAINT jobs_max_attempts_is_at_least_1 CHECK (max_attempts >= 1),
  ADD CONSTRAINT jobs_scheduled_for_is_finite CHECK (isfinite(scheduled_for)),
  ADD CONSTRAINT jobs_timeout_is_positive CHECK (timeout > interval '0'),
  ADD CONSTRAINT jobs_unique_key_has_1_to_1000_bytes CHECK (octet_length(unique_key) BETWEEN 1 AND 1000);

-- The claim: per type, priority by priority, the due ones first.
CREATE INDEX jobs_claim ON {schema}.jobs (type, priority DESC, scheduled_for, id) WHERE status = 'pending';
-- Who holds what: the reaper (by worker, or by held_until where there is none), cancels, and the restart of a sidecar.
CREATE INDEX jobs_held ON {schema}.jobs (worker_id, held_until) WHERE status = 'processing';
-- At most one pending or processing job per type and key.
CREATE UNIQUE INDEX jobs_unique ON {schema}.jobs (type, unique_key)
  WHERE unique_key IS NOT NULL AND status IN ('pending', 'processing');

-- Rows pass through three versions (pending, processing, final), each with new index entries: vacuum has to keep up.
-- vacuum_truncate would take ACCESS EXCLUSIVE for a file that grows again at once.
ALTER TABLE {schema}.jobs SET (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 1000,
  autovacuum_vacuum_insert_scale_factor = 0.1,
  vacuum_truncate = off
);

-- One row per failed attempt. The lease names the attempt: attempts can be given back, a lease is never used twice.
CREATE TABLE {schema}.job_errors (
  job_id     uuid NOT NULL,
  lease      uuid NOT NULL,
  attempt    int NOT NULL,
  error      text NOT NULL,
  worker_id  int,
  started_at timestamptz,
  failed_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (job_id, lease)
);

-- One row per running sidecar, a new one at each process start.
CREATE TABLE {schema}.job_workers (
  id             int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  name           text NOT NULL,
  version        text NOT NULL,
  schema_version int NOT NULL,
  concurrency    int NOT NULL,
  lease_time     interval NOT NULL,
  dead_after     interval NOT NULL,
  started_at     timestamptz NOT NULL DEFAULT now(),
  heartbeat_at   timestamptz NOT NULL DEFAULT now(),
  dead_at        timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Runtime state of a type; a type without a row runs as configured.
CREATE TABLE {schema}.job_types (
  type          text PRIMARY KEY,
  paused_at     timestamptz,
  paused_reason text
);

-- What SQL functions need to know of the configuration; sidecars write it when they start.
CREATE TABLE {schema}.job_settings (
  name  text PRIMARY KEY,
  value text NOT NULL
);
INSERT INTO {schema}.job_settings VALUES ('manual_lease', '15 minutes');

-- The bell. A notification with an empty payload is a ring: there may be work. Identical ones of one transaction are
-- sent once.
CREATE FUNCTION {schema}.jobs_ring() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  -- PREPARE TRANSACTION refuses after a NOTIFY: who needs it silences the trigger and calls ring_jobs() later.
  IF current_setting('pgbell.ring', true) IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify({channel}, '');
  END IF;
  RETURN NULL;
END
$function$;

CREATE TRIGGER jobs_ring_insert AFTER INSERT ON {schema}.jobs
  FOR EACH STATEMENT EXECUTE FUNCTION {schema}.jobs_ring();
-- Only updates that make work appear: claims and completions don't pay.
CREATE TRIGGER jobs_ring_update AFTER UPDATE OF status, scheduled_for, type ON {schema}.jobs
  FOR EACH ROW WHEN (NEW.status = 'pending'
    AND (OLD.status <> 'pending' OR NEW.scheduled_for < OLD.scheduled_for OR NEW.type <> OLD.type))
  EXECUTE FUNCTION {schema}.jobs_ring();

CREATE FUNCTION {schema}.ring_jobs() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
  SELECT pg_notify({channel}, '');
$function$;

-- A job whose cancel was asked for while it ran never becomes pending again, whoever writes it.
CREATE FUNCTION {schema}.jobs_cancel_requested() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  NEW.status := 'cancelled';
  NEW.completed_at := now();
  RETURN NEW;
END
$function$;

CREATE TRIGGER jobs_cancel_requested BEFORE UPDATE OF status ON {schema}.jobs
  FOR EACH ROW WHEN (OLD.cancel_requested_at IS NOT NULL AND NEW.cancel_requested_at IS NOT NULL AND NEW.status = 'pending')
  EXECUTE FUNCTION {schema}.jobs_cancel_requested();

-- The same arguments and meaning as a plain INSERT; of two jobs with one unique_key the first is returned.
-- SECURITY DEFINER: a role that may call it needs no right on the table.
CREATE FUNCTION {schema}.enqueue_job(
  type text, payload jsonb DEFAULT '{}', priority int DEFAULT 0, delay interval DEFAULT '0', max_attempts int DEFAULT 3,
  unique_key text DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  job uuid;
BEGIN
  LOOP
    INSERT INTO {schema}.jobs (type, payload, priority, scheduled_for, max_attempts, unique_key, timeout, metadata)
    VALUES (enqueue_job.type, enqueue_job.payload, enqueue_job.priority, now() + enqueue_job.delay,
            enqueue_job.max_attempts, enqueue_job.unique_key, enqueue_job.timeout, enqueue_job.metadata)
    ON CONFLICT (type, unique_key) WHERE unique_key IS NOT NULL AND status IN ('pending', 'processing') DO NOTHING
    RETURNING id INTO job;
    EXIT WHEN job IS NOT NULL;
    SELECT id INTO job FROM {schema}.jobs
    WHERE type = enqueue_job.type AND unique_key = enqueue_job.unique_key AND status IN ('pending', 'processing');
    EXIT WHEN job IS NOT NULL;
    -- It ended between the two statements: its key is free now.
  END LOOP;
  RETURN job;
END
$function$;

-- For a worker written by hand: claims due jobs of any type that is not paused, by priority, then due time.
-- Such a worker has no heartbeat: its jobs are taken back after manual_lease.
CREATE OR REPLACE FUNCTION {schema}.claim_jobs(batch_size int DEFAULT 5) RETURNS SETOF {schema}.jobs
LANGUAGE sql SET search_path = pg_catalog, {schema}, pg_temp AS $function$
  WITH RECURSIVE kinds (type) AS (
    SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending')
    UNION ALL
    SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > k.type) FROM kinds k WHERE k.type IS NOT NULL
  ), levels (type, priority) AS (
    SELECT k.type, (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = k.type) FROM kinds k
    WHERE k.type IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = k.type AND t.paused_at IS NOT NULL)
    UNION ALL
    SELECT l.type, (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = l.type AND j.priority < l.priority)
    FROM levels l WHERE l.priority IS NOT NULL
  ), first AS (
    SELECT d.type, d.priority, count(*) AS due FROM (
      SELECT l.type, l.priority FROM levels l CROSS JOIN LATERAL (
        SELECT j.scheduled_for, j.id FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
        ORDER BY j.scheduled_for, j.id LIMIT greatest(coalesce(batch_size, 5), 0)
      ) j
      WHERE l.priority IS NOT NULL
      ORDER BY l.priority DESC, j.scheduled_for, j.id LIMIT greatest(coalesce(batch_size, 5), 0)
    ) d GROUP BY d.type, d.priority
  ), locked AS (
    SELECT j.ctid FROM first f CROSS JOIN LATERAL (
      SELECT j.ctid FROM {schema}.jobs j
      WHERE j.status = 'pending' AND j.type = f.type AND j.priority = f.priority AND j.scheduled_for <= now()
      ORDER BY j.scheduled_for, j.id LIMIT f.due FOR NO KEY UPDATE SKIP LOCKED
    ) j
  )
  UPDATE {schema}.jobs SET
    status = 'processing', attempts = attempts + 1, started_at = now(), updated_at = now(),
    lease = gen_random_uuid(), worker_id = NULL,
    held_until = now() + (SELECT value::interval FROM {schema}.job_settings WHERE name = 'manual_lease')
  WHERE ctid = ANY (ARRAY(SELECT ctid FROM locked)) AND status = 'pending'
  RETURNING *;
$function$;

-- The four below act for the holder of a lease. A lease that is not the current one gets an error, never silence.
CREATE FUNCTION {schema}.jobs_refuse_stale(job uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
DECLARE
  found {schema}.jobs;
BEGIN
  SELECT * INTO found FROM {schema}.jobs WHERE id = job;
  RAISE EXCEPTION 'job % is not held by this lease', job
    USING ERRCODE = 'object_not_in_prerequisite_state',
      DETAIL = CASE WHEN found.id IS NULL THEN 'There is no such job.' ELSE format('Its status is %s.', found.status) END,
      HINT = 'The lease ran out, the job was settled, or another worker holds it now: drop this run''s outcome.';
END
$function$;

CREATE FUNCTION {schema}.complete_job(id uuid, lease uuid, result jsonb DEFAULT NULL) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
BEGIN
  UPDATE {schema}.jobs SET status = 'completed', completed_at = now(), updated_at = now(), result = complete_job.result,
    lease = NULL, worker_id = NULL, held_until = NULL
  WHERE id = complete_job.id AND lease = complete_job.lease AND status = 'processing';
  IF NOT FOUND THEN
    PERFORM {schema}.jobs_refuse_stale(complete_job.id);
  END IF;
END
$function$;

-- retry_in NULL: the default backoff, 30 s x 4^(attempt-1), at most a day. final: fails for good whatever attempts are left.
CREATE FUNCTION {schema}.fail_job(id uuid, lease uuid, error text, retry_in interval DEFAULT NULL, final boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
BEGIN
  WITH held AS (
    SELECT id, lease, attempts, worker_id, started_at FROM {schema}.jobs
    WHERE id = fail_job.id AND lease = fail_job.lease AND status = 'processing' FOR NO KEY UPDATE
  ), noted AS (
    INSERT INTO {schema}.job_errors (job_id, lease, attempt, error, worker_id, started_at)
    SELECT id, lease, attempts, left(coalesce(fail_job.error, 'no error given'), 4000), worker_id, started_at FROM held
  )
  UPDATE {schema}.jobs j SET
    status = CASE WHEN fail_job.final OR j.attempts >= j.max_attempts THEN 'failed' ELSE 'pending' END::{schema}.job_status,
    completed_at = CASE WHEN fail_job.final OR j.attempts >= j.max_attempts THEN now() END,
    scheduled_for = CASE WHEN fail_job.final OR j.attempts >= j.max_attempts THEN j.scheduled_for
      ELSE now() + coalesce(fail_job.retry_in, least(interval '30 s' * 4 ^ least(j.attempts - 1, 20), interval '1 day')) END,
    error = left(coalesce(fail_job.error, 'no error given'), 4000), updated_at = now(),
    lease = NULL, worker_id = NULL, held_until = NULL
  FROM held WHERE j.id = held.id;
  IF NOT FOUND THEN
    PERFORM {schema}.jobs_refuse_stale(fail_job.id);
  END IF;
END
$function$;

-- True: a cancel was asked for. Extends held_until where no sidecar holds the job.
CREATE FUNCTION {schema}.heartbeat_job(id uuid, lease uuid) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  cancelled boolean;
BEGIN
  UPDATE {schema}.jobs SET held_until = CASE WHEN worker_id IS NULL THEN greatest(held_until,
    now() + (SELECT value::interval FROM {schema}.job_settings WHERE name = 'manual_lease')) END
  WHERE id = heartbeat_job.id AND lease = heartbeat_job.lease AND status = 'processing'
  RETURNING cancel_requested_at IS NOT NULL INTO cancelled;
  IF NOT FOUND THEN
    PERFORM {schema}.jobs_refuse_stale(heartbeat_job.id);
  END IF;
  RETURN cancelled;
END
$function$;

-- Returns the status that the job has then: a pending one is cancelled at once; a processing one stays so until its
-- holder, who is told, lets go; a final one is left alone.
CREATE FUNCTION {schema}.cancel_job(id uuid) RETURNS {schema}.job_status LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  now_is {schema}.job_status;
BEGIN
  UPDATE {schema}.jobs SET
    status = CASE status WHEN 'pending' THEN 'cancelled' ELSE status END,
    completed_at = CASE status WHEN 'pending' THEN now() ELSE completed_at END,
    cancel_requested_at = now(), updated_at = now()
  WHERE id = cancel_job.id AND status IN ('pending', 'processing') RETURNING status INTO now_is;
  IF now_is = 'processing' THEN
    PERFORM pg_notify({channel}, 'cancel');
  ELSIF now_is IS NULL THEN
    SELECT status INTO now_is FROM {schema}.jobs WHERE id = cancel_job.id;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'there is no job %', cancel_job.id USING ERRCODE = 'no_data_found';
    END IF;
  END IF;
  RETURN now_is;
END
$function$;

-- Runs a finished job again, or a pending one now, with all its attempts before it.
CREATE FUNCTION {schema}.retry_job(id uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
BEGIN
  UPDATE {schema}.jobs SET status = 'pending', scheduled_for = now(), updated_at = now(), attempts = 0, crashes = 0,
    completed_at = NULL, cancel_requested_at = NULL, result = NULL, lease = NULL, worker_id = NULL, held_until = NULL
  WHERE id = retry_job.id AND status <> 'processing';
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM {schema}.jobs WHERE id = retry_job.id) THEN
      RAISE EXCEPTION 'job % is being processed', retry_job.id
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it, or cancel it first.';
    END IF;
    RAISE EXCEPTION 'there is no job %', retry_job.id USING ERRCODE = 'no_data_found';
  END IF;
EXCEPTION WHEN unique_violation THEN
  RAISE EXCEPTION 'job % can''t run again: another job of its type and unique_key is pending or processing', retry_job.id
    USING ERRCODE = 'unique_violation';
END
$function$;

CREATE FUNCTION {schema}.pause_type(type text, reason text DEFAULT NULL) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
  INSERT INTO {schema}.job_types AS t (type, paused_at, paused_reason) VALUES ($1, now(), left($2, 1000))
  ON CONFLICT (type) DO UPDATE SET paused_at = coalesce(t.paused_at, now()), paused_reason = excluded.paused_reason;
$function$;

CREATE FUNCTION {schema}.resume_type(type text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, {schema}, pg_temp AS $function$
#variable_conflict use_column
BEGIN
  UPDATE {schema}.job_types SET paused_at = NULL, paused_reason = NULL WHERE type = resume_type.type;
  PERFORM pg_notify({channel}, '');
END
$function$;

-- Who may do what. Row security is on and the only policies are those of two roles that pgbell ships: a producer, which
-- may only insert, and a worker. Where this role may not create them, an administrator can, and grants them by
-- running these statements again (pgbell migrate print shows them).
ALTER TABLE {schema}.jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_errors ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_workers ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_types ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_settings ENABLE ROW LEVEL SECURITY;
