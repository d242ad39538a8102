-- Takes away what 0003_worker_deaths made.
-- Locks: ACCESS EXCLUSIVE on job_workers, for an instant.

ALTER TABLE {schema}.job_workers DROP COLUMN held_at_death;

CREATE OR REPLACE FUNCTION {schema}.jobs_ring() RETURNS trigger LANGUAGE plpgsql AS $function$
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

CREATE OR REPLACE FUNCTION {schema}.ring_jobs() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
  SELECT pg_notify({channel}, '');
$function$;
