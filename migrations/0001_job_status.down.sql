-- Drops the type, unless it was there before pgbell. The value that pgbell added to such a one can't be taken away again.
-- Locks: a short one on the type's row in the catalog.

DO $migration$
BEGIN
  IF (SELECT adopted FROM {schema}.pgbell_migrations WHERE version = 1) IS NULL THEN
    DROP TYPE {schema}.job_status;
  END IF;
END
$migration$;
