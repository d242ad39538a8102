-- Takes away what 0002_jobs made. A table that was there before stays, with its rows, and gets back its columns, rights
-- and claim_jobs. The roles pgbell_producer and pgbell_worker stay: they belong to the whole cluster.
-- Locks: ACCESS EXCLUSIVE on all that it drops or changes.

DO $migration$
DECLARE
  before constant jsonb := (SELECT adopted FROM {schema}.pgbell_migrations WHERE version = 2);
  wanted record;
BEGIN
  DROP FUNCTION {schema}.claim_jobs(int);
  IF before IS NULL THEN
    DROP TABLE {schema}.jobs;
  ELSE
    DROP TRIGGER jobs_ring_insert ON {schema}.jobs;
    DROP TRIGGER jobs_ring_update ON {schema}.jobs;
    DROP TRIGGER jobs_cancel_requested ON {schema}.jobs;
    DROP POLICY IF EXISTS pgbell_producer ON {schema}.jobs;
    DROP POLICY IF EXISTS pgbell_worker ON {schema}.jobs;
    DROP INDEX {schema}.jobs_claim, {schema}.jobs_held, {schema}.jobs_unique;
    ALTER TABLE {schema}.jobs
      DROP CONSTRAINT jobs_type_has_1_to_200_characters, DROP CONSTRAINT jobs_attempts_is_not_negative,
      DROP CONSTRAINT jobs_max_attempts_is_at_least_1, DROP CONSTRAINT jobs_scheduled_for_is_finite,
      DROP CONSTRAINT jobs_timeout_is_positive, DROP CONSTRAINT jobs_crashes_is_not_negative,
      DROP CONSTRAINT jobs_unique_key_has_1_to_1000_bytes;
    FOR wanted IN SELECT name, before -> 'columns' -> name AS was FROM unnest(ARRAY['id', 'type', 'payload', 'status', 'priority',
      'attempts', 'max_attempts', 'error', 'created_at', 'updated_at', 'scheduled_for', 'completed_at', 'started_at', 'lease',
      'worker_id', 'held_until', 'crashes', 'unique_key', 'result', 'timeout', 'metadata', 'cancel_requested_at', 'unavailable_since']) AS name
    LOOP
      IF wanted.was IS NULL THEN
        EXECUTE format('ALTER TABLE %I.jobs DROP COLUMN %I', {name}, wanted.name);
        CONTINUE;
      END IF;
      IF NOT (wanted.was ->> 'not_null')::boolean THEN
        EXECUTE format('ALTER TABLE %I.jobs ALTER COLUMN %I DROP NOT NULL', {name}, wanted.name);
      END IF;
      EXECUTE format('ALTER TABLE %I.jobs ALTER COLUMN %I %s', {name}, wanted.name, coalesce('SET DEFAULT ' || (wanted.was ->> 'default'), 'DROP DEFAULT'));
    END LOOP;
    ALTER TABLE {schema}.jobs RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
      autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor, autovacuum_analyze_threshold,
      autovacuum_vacuum_insert_scale_factor, vacuum_truncate);
    IF before -> 'options' <> '[]' THEN
      EXECUTE format('ALTER TABLE %I.jobs SET (%s)', {name}, (SELECT string_agg(option, ', ') FROM jsonb_array_elements_text(before -> 'options') AS option));
    END IF;
    IF NOT (before ->> 'row_security')::boolean THEN
      ALTER TABLE {schema}.jobs DISABLE ROW LEVEL SECURITY;
    END IF;
    FOR wanted IN SELECT rolname AS name FROM pg_catalog.pg_roles
      WHERE rolname IN ('pgbell_producer', 'pgbell_worker', 'anon', 'authenticated', 'service_role')
    LOOP
      EXECUTE format('REVOKE ALL ON %I.jobs FROM %I', {name}, wanted.name);
    END LOOP;
    IF before ->> 'claim_jobs' IS NOT NULL THEN
      -- Its text names the application's tables by whatever path it has.
      PERFORM set_config('check_function_bodies', 'off', true);
      EXECUTE before ->> 'claim_jobs';
      EXECUTE format('REVOKE ALL ON FUNCTION %I.claim_jobs(int) FROM PUBLIC', {name});
    END IF;
    FOR wanted IN SELECT grant_text FROM jsonb_array_elements_text(before -> 'grants') AS grant_text LOOP
      BEGIN
        EXECUTE wanted.grant_text;
      EXCEPTION WHEN undefined_object THEN
        NULL; -- the role is gone
      END;
    END LOOP;
  END IF;
END
$migration$;

DROP TABLE {schema}.job_errors, {schema}.job_workers, {schema}.job_types, {schema}.job_settings;
DROP FUNCTION {schema}.jobs_access(), {schema}.jobs_roles(), {schema}.resume_type(text), {schema}.pause_type(text, text),
  {schema}.retry_job(uuid), {schema}.cancel_job(uuid), {schema}.heartbeat_job(uuid, uuid),
  {schema}.fail_job(uuid, uuid, text, interval, boolean), {schema}.complete_job(uuid, uuid, jsonb),
  {schema}.jobs_refuse_stale(uuid), {schema}.jobs_manual_lease(),
  {schema}.enqueue_job(text, jsonb, int, interval, int, text, interval, jsonb),
  {schema}.jobs_cancel_requested(), {schema}.ring_jobs(), {schema}.job_types_ring(), {schema}.jobs_ring();

-- What the roles may do elsewhere in the schema is not pgbell's business, but this it gave.
DO $migration$
DECLARE
  role text;
BEGIN
  FOR role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('pgbell_producer', 'pgbell_worker') LOOP
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', {name}, role);
    EXECUTE format('REVOKE ALL ON %I.pgbell_migrations FROM %I', {name}, role);
  END LOOP;
END
$migration$;
DROP POLICY IF EXISTS pgbell_worker ON {schema}.pgbell_migrations;
