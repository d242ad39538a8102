package migrations

// sqlPin goes first in every transaction. By set_config, so that it holds for the transaction alone, also through a
// transaction pooler; the caller's path is kept for sqlUnpin, since the tool that carries a printed file may write its
// own row in the same transaction. All names are qualified: the path is pinned so that nobody's operator is used.
const sqlPin = `DO $pgbell$
BEGIN
  PERFORM pg_catalog.set_config('pgbell.search_path', pg_catalog.current_setting('search_path'), true);
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  PERFORM pg_catalog.set_config('lock_timeout', '%[1]dms', true);
  PERFORM pg_catalog.set_config('statement_timeout', '0', true);
  PERFORM pg_catalog.set_config('client_min_messages', 'warning', true);
  PERFORM pg_catalog.set_config('pgbell.pinned', 'on', true);
END
$pgbell$;
`

const sqlUnpin = `
DO $pgbell$
BEGIN
  PERFORM pg_catalog.set_config('search_path', coalesce(pg_catalog.current_setting('pgbell.search_path', true), pg_catalog.current_setting('search_path')), true);
END
$pgbell$;
`

// sqlRecord writes a migration's row before the migration runs, in its transaction, and refuses to run it twice or out of
// order. The first makes the schema and the table. Locks: the migration lock, waited for up to lock_timeout; a program of
// ours has tried it before.
const sqlRecord = `DO $pgbell$
BEGIN
  IF current_setting('pgbell.pinned', true) IS DISTINCT FROM 'on' THEN
    RAISE EXCEPTION 'migration %[1]d of pgbell must run in one transaction (psql -1 -f)' USING ERRCODE = 'PB004';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('pgbell migrate ' || {name}, 0));
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {name}) THEN
    CREATE SCHEMA {schema};
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relname = 'pgbell_migrations'
      AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {name})) THEN
    IF %[1]d > 1 THEN
      RAISE EXCEPTION 'migration %[1]d of pgbell comes after migration 1, which schema %% does not have', {name} USING ERRCODE = 'PB002';
    END IF;
    CREATE TABLE {schema}.pgbell_migrations (
      version    int PRIMARY KEY,
      name       text NOT NULL,
      checksum   text NOT NULL,
      serves     int NOT NULL,
      adopted    jsonb,
      applied_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON COLUMN {schema}.pgbell_migrations.serves IS 'The oldest schema version whose sidecars this migration still serves';
    COMMENT ON COLUMN {schema}.pgbell_migrations.adopted IS 'What was there before, for the way down; NULL: nothing';
    ALTER TABLE {schema}.pgbell_migrations ENABLE ROW LEVEL SECURITY;
  END IF;
  IF EXISTS (SELECT FROM {schema}.pgbell_migrations WHERE version = %[1]d) THEN
    RAISE EXCEPTION 'migration %[1]d of pgbell is applied already in schema %%', {name} USING ERRCODE = 'PB003';
  ELSIF %[1]d > 1 AND NOT EXISTS (SELECT FROM {schema}.pgbell_migrations WHERE version = %[1]d - 1) THEN
    RAISE EXCEPTION 'migration %[1]d of pgbell comes after migration %[2]d, which schema %% does not have', {name} USING ERRCODE = 'PB002';
  END IF;
  INSERT INTO {schema}.pgbell_migrations (version, name, checksum, serves) VALUES (%[1]d, '%[3]s', '%[4]s', %[5]d);
END
$pgbell$;

`

// sqlTryLock takes the lock that lets one process at a time migrate a schema, if it is free.
const sqlTryLock = `SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('pgbell migrate ' || {name}, 0))`

// sqlSituation says what the catalog knows of the schema, without a lock and without a right on anything in it.
const sqlSituation = `
SELECT n.oid IS NOT NULL, c.oid IS NOT NULL, current_user,
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')),
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), true) AND coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), true),
  pg_catalog.current_database(), pg_catalog.current_setting('server_version_num')::int
FROM (SELECT) one
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = {name}
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'pgbell_migrations'`

const sqlApplied = `SELECT version, name, checksum, serves, adopted IS NOT NULL, applied_at FROM {schema}.pgbell_migrations ORDER BY version`

// sqlAccessStale: roles were made or dropped since rights were last given. It reads two small catalogs and one row.
const sqlAccessStale = `SELECT {schema}.jobs_roles() IS DISTINCT FROM (SELECT value FROM {schema}.job_settings WHERE name = 'access')`

// sqlAccess takes ACCESS EXCLUSIVE on a table only where a policy is missing.
const sqlAccess = `SELECT FROM {schema}.jobs_access()`

// sqlBlockers finds who holds the migration lock, or locks on tables of the schema. A prepared transaction
// has no process: the lock on its own number names it.
const sqlBlockers = `
SELECT DISTINCT coalesce(l.pid, 0), coalesce(a.application_name, ''), coalesce(a.state, ''), a.query_start, coalesce(x.gid, ''),
  CASE l.locktype WHEN 'advisory' THEN 'the migration lock' ELSE l.mode || ' on ' || l.relation::regclass::text END
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN (pg_catalog.pg_locks own JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = own.transactionid)
  ON l.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid' AND own.virtualtransaction = l.virtualtransaction
WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND (l.locktype = 'relation' AND l.relation IN (
         SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = {name} AND c.relname IN ('jobs', 'job_errors', 'job_workers', 'job_types', 'job_settings', 'pgbell_migrations'))
    OR l.locktype = 'advisory' AND l.objsubid = 1
       AND (l.classid::bigint << 32) | l.objid::bigint = pg_catalog.hashtextextended('pgbell migrate ' || {name}, 0))
ORDER BY 4 NULLS LAST LIMIT 5`

// sqlForget and sqlLeave end a step down: the last one takes the table with it.
const (
	sqlForget = `DELETE FROM {schema}.pgbell_migrations WHERE version = %d;`
	sqlLeave  = `DROP TABLE {schema}.pgbell_migrations;`
)

// sqlHold keeps writers out while sqlAtStake is decided on. Locks: ACCESS EXCLUSIVE on jobs and job_workers.
const sqlHold = `LOCK TABLE {schema}.jobs, {schema}.job_workers IN ACCESS EXCLUSIVE MODE`

// sqlAtStake counts, for a way down to version %[1]d, the sidecars that run and need a newer one, by their presence locks or
// heartbeats; and jobs that would be lost, up to a thousand of each status: by the partial indexes jobs_claim and jobs_held.
const sqlAtStake = `
SELECT
  (SELECT count(*) FROM {schema}.job_workers w WHERE w.dead_at IS NULL AND w.schema_version > %[1]d
    AND (w.heartbeat_at > now() - w.lease_time OR EXISTS (
      SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
        AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
        AND l.classid = (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relname = 'jobs' AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = {name})) AND l.objid = w.id::bigint::oid))),
  (SELECT count(*) FROM (
     (SELECT FROM {schema}.jobs WHERE status = 'pending' LIMIT 1000) UNION ALL (SELECT FROM {schema}.jobs WHERE status = 'processing' LIMIT 1000)
   ) unfinished WHERE %[1]d < 2 AND EXISTS (SELECT FROM {schema}.pgbell_migrations WHERE version = 2 AND adopted IS NULL))`
