-- Whether a job died alone with its worker, or in company, so that a job which kills its workers can be told from its neighbours.
-- serves: 2
-- Locks: ACCESS EXCLUSIVE on job_workers, for an instant.

-- How many jobs it held when it was declared dead, counted up to two; null while it lives, and where a sidecar of schema
-- version 2 declared it dead.
ALTER TABLE {schema}.job_workers ADD COLUMN held_at_death int;
