package listener

// All statements are run in pgx's exec mode, which names no prepared statement: they must reach a transaction pooler whole
// for it to be recognized. Keys of advisory locks: see the package comment.
const (
	// The canary, with what else the bell connection wants to know each time: which process answers, the oid of the jobs
	// table, 0 if there is none, how full the queue of notifications is, and whether the server is read-only. Then no canary is
	// sent: a standby refuses it, and a demoted primary would echo it, though inserts ring elsewhere. The catalog is read instead of to_regclass
	// because a role that may only listen need not have USAGE on the schema. NOTIFY takes a cluster-wide lock for the length
	// of its commit.
	sqlCanary = `
SELECT pg_catalog.pg_backend_pid(), coalesce((
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relname = 'jobs' AND c.relkind IN ('r', 'p')), 0), pg_catalog.pg_notification_queue_usage(),
  CASE WHEN pg_catalog.current_setting('transaction_read_only')::bool THEN true ELSE pg_catalog.pg_notify($2, $3)::text IS NULL END`

	sqlProcess = `SELECT pg_catalog.pg_backend_pid()`

	// Takes P without waiting: it can only be held by an older connection of this process that the server believes alive.
	sqlLock = `SELECT pg_catalog.pg_try_advisory_lock($1::int4, $2::int4)`

	sqlUnlock = `SELECT pg_catalog.pg_advisory_unlock($1::int4, $2::int4)`

	// Takes those of the keys $2 of S, shared, that no insert is just probing, and returns them.
	sqlTakeSleepers = `
SELECT coalesce(array_agg(k) FILTER (WHERE pg_catalog.pg_try_advisory_lock_shared($1::int4, k)), '{}')
FROM pg_catalog.unnest($2::int4[]) k`

	// Releases those keys of S.
	sqlReleaseSleepers = `
SELECT coalesce(bool_and(pg_catalog.pg_advisory_unlock_shared($1::int4, k)), true) FROM pg_catalog.unnest($2::int4[]) k`

	// The oid of the jobs table and whether no transaction holds U, which is tried exclusively and held until the statement's
	// end: an insert meanwhile rings, as it would anyway, since S is held.
	sqlUnannounced = `
SELECT c.oid, pg_catalog.pg_try_advisory_xact_lock(c.oid::int4, 0)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = 'jobs' AND c.relkind IN ('r', 'p')`

	// Who holds U, by the name of the transaction; a prepared one has no process. Another sidecar's try of U is no holder. Reading pg_locks holds no snapshot and
	// queues nowhere, but stops the server's lock table for as long as it takes to copy it.
	sqlHolders = `
SELECT virtualtransaction, coalesce(pid, 0) FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objsubid = 2 AND objid = 0 AND classid = $1::oid
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())`

	// Who holds a key of S alone, of those that nobody holds shared.
	sqlIntruder = `
SELECT l.pid, coalesce(a.application_name, '')
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted AND l.objsubid = 2 AND l.classid = $1::oid
  AND l.objid >= '4294967288'::oid -- -8 as an oid
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
LIMIT 1`

	// What a session says of itself, for the log. Since when its transaction is open isn't shown to every role.
	sqlSession = `SELECT coalesce(application_name, '') FROM pg_catalog.pg_stat_activity WHERE pid = $1`
)
