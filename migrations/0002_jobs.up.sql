-- The jobs table, its companions, and the functions of the SQL contract (DESIGN.md).
-- serves: 2
-- Locks: ACCESS EXCLUSIVE on jobs where the table exists already (it is adopted: columns and constraints are added,
-- which reads the whole table once), none otherwise.

-- A jobs table that was there before pgbell is adopted: 0001 has looked at it. What it was like is written down, so that
-- the way down restores it.
DO $migration$
DECLARE
  jobs oid;
  claim oid;
BEGIN
  IF coalesce((SELECT adopted ->> 'jobs' FROM {schema}.pgbell_migrations WHERE version = 1), 'false') <> 'true' THEN
    CREATE TABLE {schema}.jobs (id uuid PRIMARY KEY, type text, payload jsonb, status {schema}.job_status);
    RETURN;
  END IF;
  LOCK TABLE {schema}.jobs IN ACCESS EXCLUSIVE MODE;
  SELECT oid INTO jobs FROM pg_catalog.pg_class WHERE relname = 'jobs' AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {name});
  SELECT p.oid INTO claim FROM pg_catalog.pg_proc p WHERE p.proname = 'claim_jobs' AND p.prorettype = (SELECT reltype FROM pg_catalog.pg_class WHERE oid = jobs);
  UPDATE {schema}.pgbell_migrations SET adopted = jsonb_build_object(
    'columns', (SELECT jsonb_object_agg(a.attname, jsonb_build_object('not_null', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid)))
                FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                WHERE a.attrelid = jobs AND a.attnum > 0 AND NOT a.attisdropped),
    'options', (SELECT to_jsonb(coalesce(reloptions, '{}')) FROM pg_catalog.pg_class WHERE oid = jobs),
    'row_security', (SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = jobs),
    'claim_jobs', pg_get_functiondef(claim),
    'grants', (SELECT coalesce(jsonb_agg(statement), '[]') FROM (
      SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, o.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END) AS statement
      FROM (
        SELECT format('TABLE %s', jobs::regclass) AS name, relowner AS owner, relacl AS acl FROM pg_catalog.pg_class WHERE oid = jobs
        UNION ALL SELECT format('FUNCTION %s', claim::regprocedure), proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_catalog.pg_proc WHERE oid = claim
      ) o CROSS JOIN LATERAL aclexplode(o.acl) a WHERE a.grantee <> o.owner
      UNION ALL
      SELECT format('GRANT %s (%I) ON TABLE %s TO %s', a.privilege_type, c.attname, jobs::regclass,
                    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
      FROM pg_catalog.pg_attribute c CROSS JOIN LATERAL aclexplode(c.attacl) a WHERE c.attrelid = jobs AND NOT c.attisdropped
    ) g)
  ) WHERE version = 2;
END
$migration$;

-- Up to completed_at, the published contract.
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
  ADD COLUMN IF NOT EXISTS cancel_requested_at timestamptz,
  ADD COLUMN IF NOT EXISTS unavailable_since   timestamptz; -- since when its handler could not be reached

-- The recipe's columns are looser than the contract's, and an adopted table may lack a default. The id is a version 7 uuid
-- (RFC 9562, section 5.7): a random one whose first 48 bits are the time in milliseconds, and whose version is 7 instead of 4.
-- So neighbours in time are neighbours in the primary key, which a random id makes every write go all over.
ALTER TABLE {schema}.jobs
  ALTER COLUMN id SET DEFAULT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid,
  ALTER COLUMN payload SET DEFAULT '{}', ALTER COLUMN payload SET NOT NULL, ALTER COLUMN type SET NOT NULL,
  ALTER COLUMN status SET DEFAULT 'pending', ALTER COLUMN status SET NOT NULL,
  ALTER COLUMN priority SET DEFAULT 0, ALTER COLUMN priority SET NOT NULL,
  ALTER COLUMN attempts SET DEFAULT 0, ALTER COLUMN attempts SET NOT NULL,
  ALTER COLUMN max_attempts SET DEFAULT 3, ALTER COLUMN max_attempts SET NOT NULL,
  ALTER COLUMN created_at SET DEFAULT now(), ALTER COLUMN created_at SET NOT NULL,
  ALTER COLUMN updated_at SET DEFAULT now(), ALTER COLUMN updated_at SET NOT NULL,
  ALTER COLUMN scheduled_for SET DEFAULT now(), ALTER COLUMN scheduled_for SET NOT NULL,
  ALTER COLUMN crashes SET DEFAULT 0, ALTER COLUMN crashes SET NOT NULL;

-- The names are the error messages that an application sees. None forbids what a worker written by hand may write
-- (attempts beyond max_attempts).
ALTER TABLE {schema}.jobs
  ADD CONSTRAINT jobs_type_has_1_to_200_characters CHECK (char_length(type) BETWEEN 1 AND 200),
  ADD CONSTRAINT jobs_attempts_is_not_negative CHECK (attempts >= 0),
  ADD CONSTRAINT jobs_max_attempts_is_at_least_1 CHECK (max_attempts >= 1),
  ADD CONSTRAINT jobs_scheduled_for_is_finite CHECK (isfinite(scheduled_for)),
  ADD CONSTRAINT jobs_timeout_is_positive CHECK (timeout > interval '0'),
  ADD CONSTRAINT jobs_crashes_is_not_negative CHECK (crashes >= 0),
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
  types          text[] NOT NULL, -- that it has handlers for; '*' means any
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
  value text NOT NULL,
  CONSTRAINT job_settings_manual_lease_is_a_positive_interval CHECK (name <> 'manual_lease' OR value::interval > interval '0')
);
INSERT INTO {schema}.job_settings VALUES ('manual_lease', '15 minutes');

-- The bell (listener/doc.go). A notification with an empty payload is a ring: there may be work. Identical ones of one
-- transaction are sent once. A transaction that notifies shares its flush with no other, so rings are sent only while
-- somebody sleeps. Two advisory locks, (oid of jobs, key), say so:
--   U, key 0, shared until the transaction ends: it may have rows that it doesn't ring for;
--   S, keys -8 to -1, shared by each sleeping sidecar on its session, all eight.
-- U comes before the probe of S, always: who falls asleep after the probe waits for U. Each session probes one key of S, by
-- trying to take it alone; with a single key they would meet each other there, and ring for nothing. Taking and
-- releasing are one expression because nothing can interrupt it, and leave a session lock behind.
-- Every name is qualified instead of SET search_path, which would cost a tenth of the inserts per second.
CREATE FUNCTION {schema}.jobs_ring() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
  IF (CASE
    -- PREPARE TRANSACTION refuses after a NOTIFY: who needs it silences the trigger and calls ring_jobs() later.
    WHEN pg_catalog.current_setting('pgbell.ring', true) OPERATOR(pg_catalog.=) 'off' THEN false
    WHEN pg_catalog.pg_try_advisory_xact_lock_shared(TG_RELID::pg_catalog.int4, 0)
    THEN CASE WHEN pg_catalog.pg_try_advisory_lock(TG_RELID::pg_catalog.int4, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.|) -8)
      THEN NOT pg_catalog.pg_advisory_unlock(TG_RELID::pg_catalog.int4, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.|) -8)
      ELSE true END
    ELSE true END)
  THEN
    PERFORM pg_catalog.pg_notify({channel}, '');
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

-- Resuming a type always rings: it is rare, and this is another table.
CREATE FUNCTION {schema}.job_types_ring() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF current_setting('pgbell.ring', true) IS DISTINCT FROM 'off' THEN
    PERFORM pg_notify({channel}, '');
  END IF;
  RETURN NULL;
END
$function$;

CREATE TRIGGER job_types_ring AFTER UPDATE OF paused_at ON {schema}.job_types
  FOR EACH ROW WHEN (OLD.paused_at IS NOT NULL AND NEW.paused_at IS NULL) EXECUTE FUNCTION {schema}.job_types_ring();
CREATE TRIGGER job_types_ring_delete AFTER DELETE ON {schema}.job_types
  FOR EACH ROW WHEN (OLD.paused_at IS NOT NULL) EXECUTE FUNCTION {schema}.job_types_ring();

-- A job whose cancel was asked for while it ran doesn't become pending again, whoever writes it. Set to pending by hand
-- after it has ended, it runs again, and the old wish is forgotten.
CREATE FUNCTION {schema}.jobs_cancel_requested() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  IF OLD.status = 'processing' THEN
    NEW.status := 'cancelled';
    NEW.completed_at := now();
  ELSE
    NEW.cancel_requested_at := NULL;
  END IF;
  RETURN NEW;
END
$function$;

CREATE TRIGGER jobs_cancel_requested BEFORE UPDATE OF status ON {schema}.jobs
  FOR EACH ROW WHEN (OLD.cancel_requested_at IS NOT NULL AND NEW.cancel_requested_at IS NOT NULL
    AND NEW.status = 'pending' AND OLD.status <> 'pending')
  EXECUTE FUNCTION {schema}.jobs_cancel_requested();

-- The same arguments and meaning as a plain INSERT, where NULL stands for the default but type and payload are required;
-- of two jobs with one unique_key the first is returned.
-- SECURITY DEFINER: a role that may call it needs no right on the table.
CREATE FUNCTION {schema}.enqueue_job(
  type text, payload jsonb DEFAULT '{}', priority int DEFAULT 0, delay interval DEFAULT '0', max_attempts int DEFAULT 3,
  unique_key text DEFAULT NULL, timeout interval DEFAULT NULL, metadata jsonb DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  job uuid;
BEGIN
  LOOP
    INSERT INTO {schema}.jobs (type, payload, priority, scheduled_for, max_attempts, unique_key, timeout, metadata)
    VALUES (enqueue_job.type, enqueue_job.payload, coalesce(enqueue_job.priority, 0), now() + coalesce(enqueue_job.delay, '0'),
            coalesce(enqueue_job.max_attempts, 3), enqueue_job.unique_key, enqueue_job.timeout, enqueue_job.metadata)
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

-- How long a job without a heartbeat is left to its holder.
CREATE FUNCTION {schema}.jobs_manual_lease() RETURNS interval LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
  SELECT coalesce((SELECT value::interval FROM {schema}.job_settings WHERE name = 'manual_lease'), interval '15 minutes');
$function$;

-- For a worker written by hand: claims due jobs of any type that is not paused, by priority, then due time.
-- Such a worker has no heartbeat: its jobs are taken back after manual_lease. The backlog is never read: types and their
-- priorities are found by skipping through jobs_claim, and of each at most batch_size rows are looked at.
CREATE OR REPLACE FUNCTION {schema}.claim_jobs(batch_size int DEFAULT 5) RETURNS SETOF {schema}.jobs
LANGUAGE plpgsql SECURITY INVOKER VOLATILE SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
  missing int := greatest(coalesce(batch_size, 5), 0);
  until timestamptz := now() + {schema}.jobs_manual_lease();
  levels record;
  levelled int;
  held tid[] := '{}';
  more tid[];
BEGIN
  WITH RECURSIVE kinds (type) AS (
    SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' ORDER BY j.type LIMIT 1)
    UNION ALL
    SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > k.type ORDER BY j.type LIMIT 1) FROM kinds k WHERE k.type IS NOT NULL
  ), levels (type, priority) AS (
    SELECT k.type, (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = k.type ORDER BY j.priority DESC LIMIT 1) FROM kinds k
    WHERE k.type IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = k.type AND t.paused_at IS NOT NULL)
    UNION ALL
    SELECT l.type, (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = l.type AND j.priority < l.priority ORDER BY j.priority DESC LIMIT 1)
    FROM levels l WHERE l.priority IS NOT NULL
  ), first AS (
    SELECT l.type, l.priority, j.scheduled_for, j.id FROM levels l CROSS JOIN LATERAL (
      SELECT j.scheduled_for, j.id FROM {schema}.jobs j
      WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
      ORDER BY j.scheduled_for, j.id LIMIT missing
    ) j
    WHERE l.priority IS NOT NULL
    ORDER BY l.priority DESC, j.scheduled_for, j.id LIMIT missing
  ), shares AS (
    SELECT f.type, f.priority, count(*) AS due FROM first f GROUP BY f.type, f.priority
  ), locked AS (
    SELECT j.ctid FROM shares s CROSS JOIN LATERAL (
      SELECT j.ctid FROM {schema}.jobs j
      WHERE j.status = 'pending' AND j.type = s.type AND j.priority = s.priority AND j.scheduled_for <= now()
      ORDER BY j.scheduled_for, j.id LIMIT s.due FOR NO KEY UPDATE SKIP LOCKED
    ) j
  )
  SELECT (SELECT coalesce(array_agg(l.ctid), '{}') FROM locked l), (SELECT coalesce(sum(s.due), 0) FROM shares s) INTO held, levelled;
  missing := missing - cardinality(held);
  -- Others held some of the first: go on to what comes after, level by level.
  IF cardinality(held) < levelled THEN
    FOR levels IN
      WITH RECURSIVE kinds (type) AS (
        SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' ORDER BY j.type LIMIT 1)
        UNION ALL
        SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > k.type ORDER BY j.type LIMIT 1) FROM kinds k WHERE k.type IS NOT NULL
      ), levels (type, priority) AS (
        SELECT k.type, (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = k.type ORDER BY j.priority DESC LIMIT 1) FROM kinds k
        WHERE k.type IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = k.type AND t.paused_at IS NOT NULL)
        UNION ALL
        SELECT l.type, (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = l.type AND j.priority < l.priority ORDER BY j.priority DESC LIMIT 1)
        FROM levels l WHERE l.priority IS NOT NULL
      )
      SELECT l.type, l.priority FROM levels l CROSS JOIN LATERAL (
        SELECT j.scheduled_for FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
        ORDER BY j.scheduled_for LIMIT 1
      ) j
      WHERE l.priority IS NOT NULL ORDER BY l.priority DESC, j.scheduled_for
    LOOP
      EXIT WHEN missing = 0;
      SELECT coalesce(array_agg(j.ctid), '{}') INTO more FROM (
        SELECT j.ctid FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = levels.type AND j.priority = levels.priority AND j.scheduled_for <= now()
          AND j.ctid <> ALL (held)
        ORDER BY j.scheduled_for, j.id LIMIT missing FOR NO KEY UPDATE SKIP LOCKED
      ) j;
      held := held || more;
      missing := missing - cardinality(more);
    END LOOP;
  END IF;
  RETURN QUERY
    WITH claimed AS (
      UPDATE {schema}.jobs j SET
        status = 'processing', attempts = j.attempts + 1, started_at = now(), updated_at = now(),
        lease = gen_random_uuid(), worker_id = NULL, held_until = until
      WHERE j.ctid = ANY (held) -- locked above; with its status a plan of an empty table would read all of jobs_claim
      RETURNING j.*
    )
    SELECT * FROM claimed c ORDER BY c.priority DESC, c.scheduled_for, c.id;
END
$function$;

-- The four below act for the holder of a lease. A lease that is not the current one gets an error, never silence.
CREATE FUNCTION {schema}.jobs_refuse_stale(job uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $function$
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
SET search_path = pg_catalog, pg_temp AS $function$
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
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
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
SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  cancelled boolean;
BEGIN
  UPDATE {schema}.jobs SET held_until = CASE WHEN worker_id IS NULL THEN greatest(held_until,
    now() + {schema}.jobs_manual_lease()) END
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
SET search_path = pg_catalog, pg_temp AS $function$
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
SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
  broken text;
BEGIN
  UPDATE {schema}.jobs SET status = 'pending', scheduled_for = now(), updated_at = now(), attempts = 0, crashes = 0,
    completed_at = NULL, cancel_requested_at = NULL, unavailable_since = NULL, result = NULL, lease = NULL, worker_id = NULL, held_until = NULL
  WHERE id = retry_job.id AND status <> 'processing';
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM {schema}.jobs WHERE id = retry_job.id) THEN
      RAISE EXCEPTION 'job % is being processed', retry_job.id
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Wait for it, or cancel it first.';
    END IF;
    RAISE EXCEPTION 'there is no job %', retry_job.id USING ERRCODE = 'no_data_found';
  END IF;
EXCEPTION WHEN unique_violation THEN
  GET STACKED DIAGNOSTICS broken = CONSTRAINT_NAME;
  IF broken <> 'jobs_unique' THEN
    RAISE;
  END IF;
  RAISE EXCEPTION 'job % can''t run again: another job of its type and unique_key is pending or processing', retry_job.id
    USING ERRCODE = 'unique_violation';
END
$function$;

CREATE FUNCTION {schema}.pause_type(type text, reason text DEFAULT NULL) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $function$
  INSERT INTO {schema}.job_types AS t (type, paused_at, paused_reason) VALUES ($1, now(), left($2, 1000))
  ON CONFLICT (type) DO UPDATE SET paused_at = coalesce(t.paused_at, now()), paused_reason = excluded.paused_reason;
$function$;

-- The trigger on job_types rings.
CREATE FUNCTION {schema}.resume_type(type text) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $function$
  UPDATE {schema}.job_types t SET paused_at = NULL, paused_reason = NULL WHERE t.type = $1;
$function$;

-- Who may do what. Row security is on and the only policies are those of two roles that pgbell ships: a producer, which
-- may only insert, and a worker. Roles belong to the whole cluster and may come later: jobs_roles says which of those that
-- matter here exist, jobs_access brings rights and policies up to that and may be called at any time by the owner. It
-- takes ACCESS EXCLUSIVE only for a policy that is missing. Its own statements are the only ones that find tables by path.
ALTER TABLE {schema}.jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_errors ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_workers ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_types ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.job_settings ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION {schema}.jobs_roles() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $function$
  SELECT coalesce(string_agg(format('%s=%s', rolname, oid), ' ' ORDER BY rolname), '') FROM pg_roles
  WHERE rolname IN ('pgbell_producer', 'pgbell_worker', 'anon', 'authenticated', 'service_role');
$function$;

CREATE FUNCTION {schema}.jobs_access() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, {schema}, pg_temp AS $function$
DECLARE
  jobs constant oid := 'jobs'::regclass;
  tables constant text := 'jobs, job_errors, job_workers, job_types, job_settings';
  calls text;
  role text;
  target text;
BEGIN
  FOREACH role IN ARRAY ARRAY['pgbell_producer', 'pgbell_worker'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role);
      EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        NULL; -- an administrator makes it, or another installation just did
      END;
    END IF;
  END LOOP;

  SELECT string_agg(p.oid::regprocedure::text, ', ') INTO calls FROM pg_proc p
  WHERE p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = jobs) AND p.proname IN ('jobs_ring', 'job_types_ring', 'ring_jobs',
    'jobs_cancel_requested', 'enqueue_job', 'claim_jobs', 'jobs_refuse_stale', 'complete_job', 'fail_job', 'heartbeat_job',
    'cancel_job', 'retry_job', 'pause_type', 'resume_type', 'jobs_manual_lease', 'jobs_roles');

  FOREACH role IN ARRAY ARRAY['public', 'anon', 'authenticated'] LOOP
    CONTINUE WHEN role <> 'public' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role);
    EXECUTE format('REVOKE ALL ON FUNCTION %s, jobs_access() FROM %s', calls, role);
    EXECUTE format('REVOKE ALL ON pgbell_migrations, job_errors, job_workers, job_types, job_settings FROM %s', role);
    EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM %s', pg_get_serial_sequence('job_workers', 'id'), role);
    -- A policy that the application wrote for it on its own table is meant: it sees what that lets through.
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = jobs AND polname NOT IN ('pgbell_producer', 'pgbell_worker')
        AND (0 = ANY (polroles) OR to_regrole(role) = ANY (polroles))) THEN
      EXECUTE format('REVOKE ALL ON jobs FROM %s', role);
    END IF;
  END LOOP;

  IF to_regrole('service_role') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA {schema} TO service_role;
    EXECUTE format('GRANT ALL ON %s TO service_role', tables);
    GRANT SELECT ON pgbell_migrations TO service_role;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', calls);
  END IF;
  -- Who may update the application's own table could call its claim_jobs before.
  FOR role IN SELECT DISTINCT a.grantee::regrole::text FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
    WHERE c.oid = jobs AND a.privilege_type = 'UPDATE' AND a.grantee <> 0 AND a.grantee <> c.relowner
      AND a.grantee::regrole::text NOT IN ('anon', 'authenticated')
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION claim_jobs(int), jobs_manual_lease() TO %s', role);
    EXECUTE format('GRANT SELECT ON job_types, job_settings TO %s', role);
  END LOOP;

  IF to_regrole('pgbell_producer') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA {schema} TO pgbell_producer;
    GRANT INSERT (id, type, payload, status, priority, attempts, max_attempts, scheduled_for, unique_key, timeout, metadata)
      ON jobs TO pgbell_producer;
    GRANT EXECUTE ON FUNCTION enqueue_job(text, jsonb, int, interval, int, text, interval, jsonb), ring_jobs() TO pgbell_producer;
    IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = jobs AND polname = 'pgbell_producer') THEN
      CREATE POLICY pgbell_producer ON jobs FOR INSERT TO pgbell_producer WITH CHECK (
        status = 'pending' AND attempts = 0 AND crashes = 0 AND lease IS NULL AND worker_id IS NULL AND held_until IS NULL
        AND started_at IS NULL AND completed_at IS NULL AND cancel_requested_at IS NULL AND error IS NULL AND result IS NULL);
    END IF;
  END IF;

  IF to_regrole('pgbell_worker') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA {schema} TO pgbell_worker;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO pgbell_worker', tables);
    GRANT SELECT ON pgbell_migrations TO pgbell_worker;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pgbell_worker', calls);
    FOREACH target IN ARRAY ARRAY['jobs', 'job_errors', 'job_workers', 'job_types', 'job_settings', 'pgbell_migrations'] LOOP
      IF NOT EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polname = 'pgbell_worker'
          AND c.relname = target AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = jobs)) THEN
        EXECUTE format('CREATE POLICY pgbell_worker ON %I TO pgbell_worker USING (true) WITH CHECK (true)', target);
      END IF;
    END LOOP;
  END IF;

  INSERT INTO job_settings VALUES ('access', jobs_roles())
  ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$function$;

DO $migration$
BEGIN
  PERFORM {schema}.jobs_access();
END
$migration$;
