-- The status of a job, alone in its transaction: a value added to an enum can't be used before it is committed.
-- Locks: none on tables; a short lock on the type's row in the catalog.

DO $migration$
BEGIN
  IF pg_catalog.to_regtype('{schema}.job_status') IS NULL THEN
    CREATE TYPE {schema}.job_status AS ENUM ('pending', 'processing', 'completed', 'failed', 'cancelled');
  END IF;
END
$migration$;

-- An enum made by the recipe that pgbell adopts ends at 'failed'.
ALTER TYPE {schema}.job_status ADD VALUE IF NOT EXISTS 'cancelled';
