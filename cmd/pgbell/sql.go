package main

// {schema} stands for the quoted name of the schema.
const (
	// sqlEnqueue calls the contract's own function, once for each of $9 jobs. Locks: those of an INSERT.
	sqlEnqueue = `SELECT {schema}.enqueue_job($1::text, $2::jsonb, $3::int, $4::interval, $5::int, $6::text, $7::interval, $8::jsonb)::text
FROM generate_series(1, $9::int)`

	// sqlJobs reads the newest jobs. No index serves it, on purpose (each index costs every insert): it reads the whole
	// table where neither the type nor the status narrows it down to the claim's index.
	sqlJobs = `SELECT j.id::text, j.type, j.status::text, j.priority, j.attempts, j.max_attempts, left(j.error, 4000),
  j.created_at, j.updated_at, j.scheduled_for, j.started_at, j.completed_at, j.worker_id, j.unique_key, j.crashes, j.cancel_requested_at
FROM {schema}.jobs j
WHERE ($1::text[] IS NULL OR j.type = ANY ($1)) AND ($2::text[] IS NULL OR j.status::text = ANY ($2))
ORDER BY j.created_at DESC, j.id LIMIT $3`

	// sqlJob reads one job, by the primary key. The lease stays out: whoever knows it may settle the job.
	sqlJob = `SELECT j.id::text, j.type, j.status::text, j.priority, j.attempts, j.max_attempts, left(j.error, 4000),
  j.created_at, j.updated_at, j.scheduled_for, j.started_at, j.completed_at, j.worker_id, j.unique_key, j.crashes, j.cancel_requested_at,
  j.payload, j.result, j.metadata, j.timeout::text, j.held_until
FROM {schema}.jobs j WHERE j.id = $1::uuid`

	// sqlJobErrors reads a job's failed attempts, by the primary key of job_errors.
	sqlJobErrors = `SELECT e.attempt, e.error, e.worker_id, e.started_at, e.failed_at
FROM {schema}.job_errors e WHERE e.job_id = $1::uuid ORDER BY e.failed_at DESC LIMIT 100`

	// sqlRetry and sqlCancel lock the one row.
	sqlRetry  = `SELECT {schema}.retry_job($1::uuid)::text, 'pending'`
	sqlCancel = `SELECT NULL::text, {schema}.cancel_job($1::uuid)::text`

	// sqlProcess tells which process of the server answers.
	sqlProcess = `SELECT pg_catalog.pg_backend_pid()`

	// sqlLimits is for the session, and only where the process that answers is the one that the connection was given: not through a
	// pooler. $1 milliseconds for each statement, $2 the process.
	sqlLimits = `SELECT pg_catalog.set_config('statement_timeout', $1::text, false), pg_catalog.set_config('tcp_keepalives_idle', '10', false),
  pg_catalog.set_config('tcp_keepalives_interval', '5', false), pg_catalog.set_config('tcp_keepalives_count', '3', false)
FROM (SELECT) direct WHERE pg_catalog.pg_backend_pid()::int8 = $2::int8`

	// sqlReadOnly tells whether the server refuses writes.
	sqlReadOnly = `SELECT pg_catalog.current_setting('transaction_read_only')::bool`

	// sqlMark takes an advisory lock until the transaction ends, and sqlMarked says whether somebody in this database holds it.
	sqlMark   = `SELECT pg_advisory_xact_lock_shared($1::int4, $2::int4)`
	sqlMarked = `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1::int4::oid AND objid = $2::int4::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`

	// sqlBriefly comes before sqlBacklog, in its transaction: a scrape that is given up leaves nothing waiting in the server.
	sqlBriefly = `SELECT pg_catalog.set_config('statement_timeout', '1500ms', true), pg_catalog.set_config('lock_timeout', '500ms', true)`

	// sqlBacklog counts pending jobs and finds the oldest due one for each type. It hops from type to type, and within one
	// from priority to priority, on the index jobs_claim, and counts no further than $2: its cost is bounded by $1 types,
	// $2 rows and $3 priorities of each. The last row, with a null type, counts what is left after $1 types.
	sqlBacklog = `WITH RECURSIVE kinds (type, n) AS (
  SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' ORDER BY j.type LIMIT 1), 1
  UNION ALL
  SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > k.type ORDER BY j.type LIMIT 1), k.n + 1
  FROM kinds k WHERE k.type IS NOT NULL AND k.n < $1::int
)
SELECT k.type,
  (SELECT count(*) FROM (SELECT FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = k.type LIMIT $2::int) c),
  coalesce(extract(epoch FROM now() - (
    WITH RECURSIVE levels (priority, due, n) AS (
      (SELECT j.priority, j.scheduled_for, 1 FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = k.type
       ORDER BY j.priority DESC, j.scheduled_for LIMIT 1)
      UNION ALL
      SELECT next.priority, next.scheduled_for, l.n + 1 FROM levels l CROSS JOIN LATERAL (
        SELECT j.priority, j.scheduled_for FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = k.type AND j.priority < l.priority
        ORDER BY j.priority DESC, j.scheduled_for LIMIT 1) next
      WHERE l.n < $3::int
    ) SELECT min(due) FROM levels WHERE due <= now()
  )), 0)::float8
FROM kinds k WHERE k.type IS NOT NULL
UNION ALL
SELECT NULL,
  (SELECT count(*) FROM (SELECT FROM {schema}.jobs j WHERE j.status = 'pending'
     AND j.type > (SELECT k.type FROM kinds k WHERE k.n = $1::int) LIMIT $2::int) c), 0`
)
