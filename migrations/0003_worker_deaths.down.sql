-- Takes away what 0003_worker_deaths made.
-- Locks: ACCESS EXCLUSIVE on job_workers, for an instant.

ALTER TABLE {schema}.job_workers DROP COLUMN held_at_death;
