package chaos

// auditSQL writes down each change of a job that matters here, and each worker that registers. serial orders them where the
// clock doesn't. (The rows of one job are changed one after another, so their serials are in order.)
const auditSQL = `
CREATE TABLE chaos_audit (
  serial bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(), job uuid NOT NULL,
  old_status text NOT NULL, new_status text NOT NULL, old_lease uuid, new_lease uuid, old_worker int, new_worker int,
  old_attempts int NOT NULL, new_attempts int NOT NULL, old_crashes int NOT NULL, new_crashes int NOT NULL
);
CREATE TABLE chaos_workers (id int NOT NULL, name text NOT NULL);

CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
  INSERT INTO chaos_audit (job, old_status, new_status, old_lease, new_lease, old_worker, new_worker,
    old_attempts, new_attempts, old_crashes, new_crashes)
  VALUES (old.id, old.status, new.status, old.lease, new.lease, old.worker_id, new.worker_id,
    old.attempts, new.attempts, old.crashes, new.crashes);
  RETURN NULL;
END
$function$;
CREATE TRIGGER chaos_audit AFTER UPDATE ON jobs FOR EACH ROW
  WHEN (old.status <> new.status OR old.lease IS DISTINCT FROM new.lease OR old.attempts <> new.attempts
    OR old.worker_id IS DISTINCT FROM new.worker_id)
  EXECUTE FUNCTION chaos_audit();

CREATE FUNCTION chaos_workers() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
  INSERT INTO chaos_workers VALUES (new.id, new.name);
  RETURN NULL;
END
$function$;
CREATE TRIGGER chaos_workers AFTER INSERT ON job_workers FOR EACH ROW EXECUTE FUNCTION chaos_workers();
`

// $1 an array of specs. What is a duplicate by its unique key returns no row.
const insertSQL = `INSERT INTO jobs (type, payload, priority, scheduled_for, max_attempts, unique_key)
SELECT s.v ->> 'type', s.v, coalesce((s.v ->> 'priority')::int, 0), now() + coalesce((s.v ->> 'delay')::bigint, 0) / 1000 * interval '1 us',
  coalesce((s.v ->> 'max_attempts')::int, 3), s.v ->> 'unique_key'
FROM jsonb_array_elements($1::jsonb) AS s(v)
ON CONFLICT DO NOTHING RETURNING (payload ->> 'n')::int`

// What was handed back for another second or so is left alone.
const hastenSQL = `UPDATE jobs SET scheduled_for = now() WHERE status = 'pending' AND crashes >= 2 AND scheduled_for > now() + interval '15 s'`

const openSQL = `SELECT count(*)::int FROM jobs WHERE status IN ('pending', 'processing')`

const jobsSQL = `SELECT id::text, (payload ->> 'n')::int, type, status::text, attempts, max_attempts, crashes, coalesce(error, ''),
  coalesce(result ->> 'lease', ''), coalesce(lease::text, ''), worker_id IS NOT NULL, completed_at IS NOT NULL
FROM jobs`

const transitionsSQL = `SELECT at, job::text, old_status, new_status, coalesce(old_lease::text, ''), coalesce(new_lease::text, ''),
  coalesce(old_worker, 0), coalesce(new_worker, 0), old_attempts, new_attempts, old_crashes, new_crashes
FROM chaos_audit ORDER BY serial`

const errorsSQL = `SELECT job_id::text, lease::text, attempt, error, coalesce(worker_id, 0) FROM job_errors`

const workersSQL = `SELECT id, name FROM chaos_workers`

// A transaction that holds the horizon for as long as it is open.
const holdHorizonSQL = `CREATE TEMP TABLE chaos_horizon AS SELECT txid_current()`

const earsSQL = `SELECT pid FROM pg_stat_activity WHERE application_name IN ('pgbell listener', 'pgbell bell') ORDER BY pid`

const terminateSQL = `SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS t(pid)`

// All sessions but the scenario's own.
const terminateAllSQL = `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name <> 'chaos'`

const terminateOneSQL = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name <> 'chaos' ORDER BY random() LIMIT 1`

const lockRowsSQL = `SELECT FROM jobs WHERE status IN ('pending', 'processing') LIMIT 10 FOR UPDATE`

const lockTableSQL = `LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE`

const floodWALSQL = `SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 4000000))`
