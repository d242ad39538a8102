package listener

// All statements are run in pgx's exec mode, which names no prepared statement: they must reach a transaction pooler whole
// for it to be recognized.
const (
	// The canary, with what else the bell connection wants to know each time: which process answers, and the oid of the
	// jobs table, 0 if there is none. The catalog is read instead of to_regclass because a role that may only listen need not
	// have USAGE on the schema. NOTIFY takes a cluster-wide lock for the length of its commit.
	sqlCanary = `
SELECT pg_catalog.pg_backend_pid(), coalesce((
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND c.relname = 'jobs' AND c.relkind IN ('r', 'p')), 0)
FROM pg_catalog.pg_notify($2, $3)`

	// Takes P without waiting: it can only be held by an older connection of this process that the server believes alive.
	sqlLock = `SELECT pg_catalog.pg_try_advisory_lock($1::int4, $2::int4)`

	sqlUnlock = `SELECT pg_catalog.pg_advisory_unlock($1::int4, $2::int4)`
)
