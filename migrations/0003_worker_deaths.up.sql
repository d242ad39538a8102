-- Whether a job died alone with its worker, or in company, so that a job which kills its workers can be told from its neighbours. And
-- rings that a full queue of notifications doesn't turn into failed inserts.
-- serves: 2
-- Locks: ACCESS EXCLUSIVE on job_workers, for an instant.

-- How many jobs it held when it was declared dead, counted up to two; null while it lives, and where a sidecar of schema
-- version 2 declared it dead.
ALTER TABLE {schema}.job_workers ADD COLUMN held_at_death int;

-- As before; but where somebody keeps the server's queue of notifications from being emptied, a NOTIFY would fail, at the commit,
-- and the insert with it. Sidecars look at the queue, too, and poll.
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
    AND pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.9
  THEN
    PERFORM pg_catalog.pg_notify({channel}, '');
  END IF;
  RETURN NULL;
END
$function$;

CREATE OR REPLACE FUNCTION {schema}.ring_jobs() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $function$
  SELECT pg_notify({channel}, '') WHERE pg_notification_queue_usage() < 0.9;
$function$;
