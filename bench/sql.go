package main

// The settings of the server that bear on figures.
const settingsSQL = `SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit',
  'full_page_writes', 'wal_sync_method', 'shared_buffers', 'max_wal_size', 'max_connections', 'autovacuum')`

// pgbell's jobs, numbered from 0.
const fillSQL = `INSERT INTO jobs (type, payload) SELECT 'bench', jsonb_build_object('n', n) FROM generate_series(0, $1 - 1) AS n`

const (
	insertSQL      = `INSERT INTO jobs (type, payload) VALUES ('bench', $1)`
	insertLaterSQL = `INSERT INTO jobs (type, payload, scheduled_for) VALUES ('bench', $1, $2)`
)

// Both probes use partial indexes, and so cost next to nothing while jobs are left.
const leftSQL = `SELECT EXISTS (SELECT FROM jobs WHERE status = 'pending' AND type = 'bench')
  OR EXISTS (SELECT FROM jobs WHERE status = 'processing')`

const (
	completedSQL = `SELECT count(*) FROM jobs WHERE status = 'completed' AND attempts = 1 AND lease IS NULL`
	countSQL     = `SELECT count(*) FROM jobs`
)

// dropTriggersSQL leaves the table as it would be without pgbell's bell.
const dropTriggersSQL = `DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'jobs'::regclass AND NOT tgisinternal LOOP
    EXECUTE format('DROP TRIGGER %I ON jobs', name);
  END LOOP;
END $$`

const nothingTriggerSQL = `CREATE FUNCTION bench_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER bench AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION bench_trigger()`

const notifyTriggerSQL = `CREATE FUNCTION bench_trigger() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_notify(''bench_floor'', ''''); RETURN NULL; END';
CREATE TRIGGER bench AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION bench_trigger()`

const listenSQL = `LISTEN bench_floor`

// The floor's claim: what of a job a worker must know, and what of the claim the row must keep.
const floorClaimSQL = `WITH picked AS MATERIALIZED (
  SELECT ctid FROM jobs WHERE status = 'pending' AND type = $1 AND scheduled_for <= now()
  ORDER BY priority DESC, scheduled_for, id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE jobs SET status = 'processing', attempts = attempts + 1, started_at = now(), updated_at = now(),
  lease = gen_random_uuid(), worker_id = 1, held_until = NULL
WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
RETURNING id, lease, type, payload::text, priority, attempts, max_attempts, created_at, scheduled_for`

// status as text: else the planner may take the index on processing rows, full of dead entries in a drain, for the
// cheapest way to a few rows.
const (
	floorSettleSQL = `UPDATE jobs SET status = 'completed', completed_at = now(), updated_at = now(), result = NULL,
  lease = NULL, worker_id = NULL, held_until = NULL
WHERE id = ANY ($1::uuid[]) AND lease = ANY ($2::uuid[]) AND status::text = 'processing'`
	floorDeleteSQL = `DELETE FROM jobs WHERE id = ANY ($1::uuid[]) AND lease = ANY ($2::uuid[]) AND status::text = 'processing'`
)

// River.
const (
	riverFillSQL = `INSERT INTO river_job (state, args, kind, max_attempts, priority, queue, scheduled_at)
  SELECT 'available', jsonb_build_object('n', n), 'bench', 25, 1, 'default', now() FROM generate_series(0, $1 - 1) AS n`
	riverLeftSQL = `SELECT EXISTS (SELECT FROM river_job WHERE state = 'available') OR EXISTS (SELECT FROM river_job WHERE state = 'running')
  OR EXISTS (SELECT FROM river_job WHERE state IN ('scheduled', 'retryable', 'pending'))`
	riverCompletedSQL = `SELECT count(*) FROM river_job WHERE state = 'completed' AND attempt = 1`
)

// gue, as its migrations/schema.sql has it. An id must read as a ULID, and 26 digits do.
const (
	gueSchemaSQL = `CREATE TABLE gue_jobs (
  job_id text NOT NULL PRIMARY KEY, priority smallint NOT NULL, run_at timestamptz NOT NULL, job_type text NOT NULL,
  args bytea NOT NULL, error_count integer NOT NULL DEFAULT 0, last_error text, queue text NOT NULL,
  created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);
CREATE INDEX idx_gue_jobs_selector ON gue_jobs (queue, run_at, priority)`
	gueFillSQL = `INSERT INTO gue_jobs (job_id, priority, run_at, job_type, args, queue, created_at, updated_at)
  SELECT to_char(n, 'FM00000000000000000000000000'), 0, now(), 'bench', convert_to(jsonb_build_object('n', n)::text, 'UTF8'), '', now(), now()
  FROM generate_series(0, $1 - 1) AS n`
	gueCountSQL = `SELECT count(*) FROM gue_jobs`
)

// graphile-worker: the functions that its documentation has for SQL.
const (
	graphileFillSQL = `SELECT count(*) FROM graphile_worker.add_jobs(ARRAY(SELECT json_populate_record(NULL::graphile_worker.job_spec,
  json_build_object('identifier', 'bench', 'payload', json_build_object('n', n))) FROM generate_series(0, $1 - 1) AS n))`
	graphileInsertSQL      = `SELECT graphile_worker.add_job('bench', $1::json)`
	graphileInsertLaterSQL = `SELECT graphile_worker.add_job('bench', $1::json, run_at := $2)`
	graphileCountSQL       = `SELECT count(*) FROM graphile_worker._private_jobs`
)

// pg-boss.
const (
	bossLeftSQL      = `SELECT EXISTS (SELECT FROM pgboss.job WHERE name = 'bench' AND state < 'completed')`
	bossCompletedSQL = `SELECT count(*) FROM pgboss.job WHERE name = 'bench' AND state = 'completed' AND retry_count = 0`
)

const fillPayloadSQL = `INSERT INTO jobs (type, payload) SELECT 'bench', $2::jsonb FROM generate_series(1, $1)`

// Transactions in one database less those in another.
const transactionsSQL = `SELECT sum((xact_commit + xact_rollback) * CASE datname WHEN $1 THEN 1 ELSE -1 END)::bigint
  FROM pg_stat_database WHERE datname IN ($1, $2)`

// For the whole server. ALTER SYSTEM takes no company in its transaction.
var (
	noAutovacuumSQL = []string{"ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"}
	autovacuumSQL   = []string{"ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()"}
)

const noVacuumSQL = `DO $$
DECLARE found regclass;
BEGIN
  FOR found IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    AND relpersistence = 'p' AND oid >= 16384
  LOOP
    EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', found);
  END LOOP;
END $$`

const (
	deadSQL   = `SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables`
	othersSQL = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid())`
	positionSQL = `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`
)

// What the flat scenario puts around the jobs in front: those are due since an hour.
const (
	frontSQL = `INSERT INTO jobs (type, payload, scheduled_for)
  SELECT 'bench', jsonb_build_object('n', n), now() - interval '1 hour' + n * interval '1 microsecond' FROM generate_series(0, $1 - 1) AS n`
	behindSQL = `INSERT INTO jobs (type, scheduled_for)
  SELECT 'bench', now() - interval '30 minutes' + n * interval '1 microsecond' FROM generate_series(1, $1) AS n`
	futureSQL = `INSERT INTO jobs (type, priority, scheduled_for)
  SELECT 'bench', 10, now() + interval '1 day' + n * interval '1 microsecond' FROM generate_series(1, $1) AS n`
	foreignSQL = `INSERT INTO jobs (type, priority, scheduled_for)
  SELECT 'foreign-' || n % 100, 10, now() - interval '2 hours' FROM generate_series(1, $1) AS n`
	finishedSQL = `INSERT INTO jobs (type, status, attempts, scheduled_for, started_at, completed_at)
  SELECT 'bench', 'completed', 1, now() - interval '1 day', now() - interval '1 day', now() - interval '1 day' FROM generate_series(1, $1) AS n`
	typesSQL = `INSERT INTO jobs (type, scheduled_for)
  SELECT 'type-' || n, now() - interval '1 hour' FROM generate_series(1, $1) AS n`
	frontCompletedSQL = `SELECT count(*) FROM jobs WHERE status = 'completed' AND attempts = 1 AND payload ? 'n'`
)
