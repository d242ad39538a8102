package dispatch

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// statements are all that a Dispatcher says to the database, with the schema filled in.
type statements struct {
	claim, claimAny, claimMarked              string
	look, lookAny, levels, levelsAny          string
	complete, settle, completeTx              string
	register, unregister, beat, held, release string
	suspects, markDead, reapWorker, reapHeld  string
	saveManualLease, pauseType, ring          string
	prospect, table, glean, prune             string
	pruneWorkers                              string
}

func newStatements(schema string) statements {
	quoted := pgx.Identifier{schema}.Sanitize()
	literal := func(table string) string {
		return "'" + strings.ReplaceAll(quoted+"."+table, "'", "''") + "'::regclass"
	}
	in := strings.NewReplacer("{schema}", quoted, "{jobs}", literal("jobs")).Replace
	return statements{
		claim: in(claimSQL), claimAny: in(claimAnySQL), claimMarked: in(claimMarkedSQL),
		look: in(lookSQL), lookAny: in(lookAnySQL), levels: in(allLevelsSQL), levelsAny: in(allLevelsAnySQL),
		complete: in(completeSQL), settle: in(settleSQL), completeTx: in(completeTxSQL),
		register: in(registerSQL), unregister: in(unregisterSQL), beat: in(beatSQL), held: in(heldSQL), release: in(releaseSQL),
		suspects: in(suspectsSQL), markDead: in(markDeadSQL), reapWorker: in(reapWorkerSQL), reapHeld: in(reapHeldSQL),
		saveManualLease: in(saveManualLeaseSQL), pauseType: in(pauseTypeSQL), ring: in(ringSQL),
		prospect: in(prospectSQL), table: in(tableSQL), glean: in(gleanSQL), prune: in(pruneSQL), pruneWorkers: in(pruneWorkersSQL),
	}
}

// For the transaction of one statement alone: plans that follow the indexes whatever the statistics say. A queue's are always
// wrong, and a plan that reads or sorts the table, or is compiled for tens of milliseconds, costs more than it can gain.
const plainSQL = `SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`

// The types to claim: named ones that aren't paused, each with the most jobs that there is room for ...
const wantedSQL = `wanted (type, most) AS MATERIALIZED (
  SELECT w.type, w.most FROM unnest($1::text[], $2::int[]) AS w(type, most)
  WHERE NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = w.type AND t.paused_at IS NOT NULL)
)`

// ... and all others that have pending jobs, found by a loose scan of jobs_claim, one probe a type.
const othersSQL = `present (type) AS (
  SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending')
  UNION ALL
  SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > p.type)
  FROM present p WHERE p.type IS NOT NULL
), others (type, most) AS MATERIALIZED (
  SELECT p.type, $7::int FROM present p
  WHERE p.type IS NOT NULL AND p.type <> ALL ($8::text[])
    AND NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = p.type AND t.paused_at IS NOT NULL)
)`

// A type's priorities, the highest first: a loose scan of jobs_claim that goes on only as long as its rows are asked for.
const levelsSQL = `WITH RECURSIVE level (priority) AS (
        SELECT (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = w.type)
        UNION ALL
        SELECT (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = w.type AND j.priority < l.priority)
        FROM level l WHERE l.priority IS NOT NULL
      )`

// The due jobs of each type in w, at most w.most each, by priority and due time. Takes no locks.
const candidatesSQL = ` w CROSS JOIN LATERAL (
      ` + levelsSQL + `
      SELECT l.priority, j.scheduled_for, j.id FROM level l CROSS JOIN LATERAL (
        SELECT j.scheduled_for, j.id FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = w.type AND j.priority = l.priority AND j.scheduled_for <= now()
        ORDER BY j.scheduled_for, j.id LIMIT w.most
      ) j WHERE l.priority IS NOT NULL LIMIT w.most
    ) c`

// The candidates of all types are merged without locks, so that priority and due time hold across types. That gives a
// quota for each type and priority, and these are then locked: FOR NO KEY UPDATE, as foreign keys' locks don't conflict
// with it, SKIP LOCKED, as another claim may be there first. Only what is claimed is ever locked.
//
// A claim from no jobs to some renews the worker's heartbeat in the same statement; any claim needs the worker to be
// alive. ctid is safe to go by: the rows are locked. Index: jobs_claim.
const lockAndClaimSQL = `, locked AS MATERIALIZED (
  SELECT j.ctid FROM due d CROSS JOIN LATERAL (
    SELECT j.ctid FROM {schema}.jobs j
    WHERE j.status = 'pending' AND j.type = d.type AND j.priority = d.priority AND j.scheduled_for <= now()
    ORDER BY j.scheduled_for, j.id LIMIT d.most FOR NO KEY UPDATE SKIP LOCKED
  ) j
` + updateSQL

const updateSQL = `), renewed AS (
  UPDATE {schema}.job_workers SET heartbeat_at = clock_timestamp()
  WHERE id = $4::int AND dead_at IS NULL AND $5::bool AND EXISTS (SELECT FROM locked)
  RETURNING id
), claimed AS (
  UPDATE {schema}.jobs j SET
    status = 'processing', attempts = j.attempts + 1, started_at = now(), updated_at = now(),
    lease = gen_random_uuid(), worker_id = $4::int, held_until = NULL
  WHERE j.ctid = ANY (ARRAY(SELECT l.ctid FROM locked l)) AND j.status = 'pending'
    AND (EXISTS (SELECT FROM renewed)
      OR NOT $5::bool AND EXISTS (SELECT FROM {schema}.job_workers w WHERE w.id = $4::int AND w.dead_at IS NULL))
  RETURNING j.id, j.type, j.payload, j.priority, j.attempts, j.max_attempts, j.created_at, j.scheduled_for, j.lease,
    j.crashes, j.metadata, j.timeout
)
SELECT c.id, c.type, CASE WHEN octet_length(p.text) <= $6::int THEN p.text END, octet_length(p.text),
  c.priority, c.attempts, c.max_attempts, c.created_at, c.scheduled_for, c.lease, c.crashes,
  CASE WHEN octet_length(m.text) <= 65536 THEN m.text END,
  CASE WHEN c.timeout IS NULL THEN 0 ELSE least(extract(epoch FROM c.timeout), 1e9) END::float8,
  extract(epoch FROM clock_timestamp() - greatest(c.scheduled_for, c.created_at))::float8
FROM claimed c CROSS JOIN LATERAL (SELECT c.payload::text OFFSET 0) p(text) CROSS JOIN LATERAL (SELECT c.metadata::text OFFSET 0) m(text)
ORDER BY c.priority DESC, c.scheduled_for, c.id`

// $1 types, $2 the most of each, $3 the most of all, $4 worker, $5 whether to renew its heartbeat, $6 bytes of the biggest payload.
const claimSQL = `WITH RECURSIVE ` + wantedSQL + `, due AS MATERIALIZED (
  SELECT d.type, d.priority, count(*) AS most FROM (
    SELECT w.type, c.priority FROM wanted` + candidatesSQL + `
    ORDER BY c.priority DESC, c.scheduled_for, c.id LIMIT $3::int
  ) d GROUP BY d.type, d.priority
)` + lockAndClaimSQL

// As claimSQL, and $7 the most of all types that are not in $8.
const claimAnySQL = `WITH RECURSIVE ` + wantedSQL + `, ` + othersSQL + `, due AS MATERIALIZED (
  SELECT d.type, d.priority, count(*) AS most FROM (
    SELECT u.type, u.priority FROM (
      (SELECT w.type, c.priority, c.scheduled_for, c.id FROM wanted` + candidatesSQL + `)
      UNION ALL
      (SELECT w.type, c.priority, c.scheduled_for, c.id FROM others` + candidatesSQL + `
       ORDER BY c.priority DESC, c.scheduled_for, c.id LIMIT $7::int)
    ) u
    ORDER BY u.priority DESC, u.scheduled_for, u.id LIMIT $3::int
  ) d GROUP BY d.type, d.priority
)` + lockAndClaimSQL

// As claimSQL, but in each type and priority of $7 and $8 after the place that $9 and $10 say (see marks). Locks only what it
// claims. Index: jobs_claim.
const claimMarkedSQL = `WITH ` + wantedSQL + `, level (type, priority, due, id) AS MATERIALIZED (
  SELECT l.type, l.priority, l.due, l.id FROM unnest($7::text[], $8::int[], $9::timestamptz[], $10::uuid[]) AS l(type, priority, due, id)
), due AS MATERIALIZED (
  SELECT d.type, d.priority, d.due, d.after, count(*) AS most FROM (
    SELECT w.type, c.priority, c.due, c.after FROM wanted w CROSS JOIN LATERAL (
      SELECT l.priority, l.due, l.id AS after, j.scheduled_for, j.id FROM level l CROSS JOIN LATERAL (
        SELECT j.scheduled_for, j.id FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = w.type AND j.priority = l.priority AND j.scheduled_for <= now()
          AND (j.scheduled_for, j.id) > (l.due, l.id)
        ORDER BY j.scheduled_for, j.id LIMIT w.most
      ) j WHERE l.type = w.type ORDER BY l.priority DESC, j.scheduled_for, j.id LIMIT w.most
    ) c
    ORDER BY c.priority DESC, c.scheduled_for, c.id LIMIT $3::int
  ) d GROUP BY d.type, d.priority, d.due, d.after
), locked AS MATERIALIZED (
  SELECT j.ctid FROM due d CROSS JOIN LATERAL (
    SELECT j.ctid FROM {schema}.jobs j
    WHERE j.status = 'pending' AND j.type = d.type AND j.priority = d.priority AND j.scheduled_for <= now()
      AND (j.scheduled_for, j.id) > (d.due, d.after)
    ORDER BY j.scheduled_for, j.id LIMIT d.most FOR NO KEY UPDATE SKIP LOCKED
  ) j
` + updateSQL

// All priorities of the types in w.
const allOfSQL = ` w CROSS JOIN LATERAL (` + levelsSQL + ` SELECT l.priority FROM level l WHERE l.priority IS NOT NULL) l`

// $1 and $2 as in claimSQL, $3 how many to tell. Index: jobs_claim.
const allLevelsSQL = `WITH ` + wantedSQL + ` SELECT w.type, l.priority FROM wanted` + allOfSQL + ` LIMIT $3::int`

// $1, $2, $7 and $8 as in claimAnySQL, $3 how many to tell; the rest is there to keep their numbers.
const allLevelsAnySQL = `WITH RECURSIVE ` + wantedSQL + `, ` + othersSQL + `
SELECT u.type, u.priority FROM (
  SELECT w.type, l.priority FROM wanted` + allOfSQL + `
  UNION ALL
  SELECT w.type, l.priority FROM others` + allOfSQL + `
) u
WHERE ($4::int, $5::bool, $6::int) IS NOT NULL LIMIT $3::int`

// Seconds until the next job of the types in w is due, negative if one is. Takes no locks: also sees rows that a claim
// has to pass over because another transaction has them locked. Index: jobs_claim.
const nextSQL = ` w CROSS JOIN LATERAL (
      ` + levelsSQL + `
      SELECT j.scheduled_for FROM level l CROSS JOIN LATERAL (
        SELECT j.scheduled_for FROM {schema}.jobs j
        WHERE j.status = 'pending' AND j.type = w.type AND j.priority = l.priority
        ORDER BY j.scheduled_for, j.id LIMIT 1
      ) j WHERE l.priority IS NOT NULL
    ) n`

// $1 and $2 as in claimSQL.
const lookSQL = `WITH ` + wantedSQL + `
SELECT extract(epoch FROM min(n.scheduled_for) - clock_timestamp())::float8 FROM wanted` + nextSQL

// $1, $2, $7 and $8 as in claimAnySQL; the rest is there to keep their numbers.
const lookAnySQL = `WITH RECURSIVE ` + wantedSQL + `, ` + othersSQL + `
SELECT extract(epoch FROM min(u.scheduled_for) - clock_timestamp())::float8 FROM (
  SELECT n.scheduled_for FROM wanted` + nextSQL + `
  UNION ALL
  SELECT n.scheduled_for FROM others` + nextSQL + `
) u
WHERE ($3::int, $4::int, $5::bool, $6::int) IS NOT NULL`

// $1 ids, $2 leases, $3 results: a JSON object by lease, or null. The fence: a job is settled by the holder of its current
// lease alone; as no lease is used twice, two lists say as much as a list of pairs. Index: the primary key. (The cast keeps
// the planner, who thinks that next to nothing is ever processing, from jobs_held with all its dead entries.)
const completeSQL = `UPDATE {schema}.jobs j SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::jsonb -> j.lease::text,
  lease = NULL, worker_id = NULL, held_until = NULL, unavailable_since = NULL
WHERE j.id = ANY ($1::uuid[]) AND j.lease = ANY ($2::uuid[]) AND j.status::text = 'processing'`

// The same for one job in a transaction of the handler's. $1 id, $2 lease, $3 result.
const completeTxSQL = `UPDATE {schema}.jobs SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::text::jsonb,
  lease = NULL, worker_id = NULL, held_until = NULL
WHERE id = $1::uuid AND lease = $2::uuid AND status = 'processing'`

// All other ends of an attempt. $1 ids, $2 leases, $3 a JSON object by lease of {what (see verdict), error, delay in seconds}.
// retry and fail are failed attempts, noted in job_errors (the newest hundred of a job are kept). snooze, unavailable and
// back give the attempt back; unavailable does so for 24 h at most. hold passes the job on to whoever has its lease. A
// job whose cancel was asked for is cancelled, unless it is held on. Returns what became of each. Index: the primary key.
const settleSQL = `WITH ended AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, s.error, s.delay,
    CASE
      WHEN s.what = 'hold' THEN s.what
      WHEN j.cancel_requested_at IS NOT NULL THEN 'cancel'
      WHEN s.what = 'retry' AND j.attempts >= j.max_attempts THEN 'fail'
      WHEN s.what = 'unavailable' AND j.unavailable_since < now() - interval '24 h' THEN 'fail'
      ELSE s.what
    END AS what
  FROM {schema}.jobs j CROSS JOIN LATERAL (
    SELECT o.v ->> 'what' AS what, o.v ->> 'error' AS error, (o.v ->> 'delay')::float8 AS delay
    FROM (SELECT $3::jsonb -> j.lease::text AS v) o
  ) s
  WHERE j.id = ANY ($1::uuid[]) AND j.lease = ANY ($2::uuid[]) AND j.status::text = 'processing'
  ORDER BY j.id FOR NO KEY UPDATE OF j
), noted AS (
  INSERT INTO {schema}.job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT e.id, e.lease, e.attempts, coalesce(e.error, ''), e.worker_id, e.started_at FROM ended e
  WHERE e.what IN ('retry', 'fail')
), forgotten AS (
  DELETE FROM {schema}.job_errors o USING ended e
  WHERE o.job_id = e.id AND e.attempts > 100 AND o.attempt <= e.attempts - 100
)
UPDATE {schema}.jobs j SET
  status = CASE e.what WHEN 'hold' THEN 'processing' WHEN 'cancel' THEN 'cancelled' WHEN 'fail' THEN 'failed'
    ELSE 'pending' END::{schema}.job_status,
  attempts = CASE WHEN e.what IN ('snooze', 'unavailable', 'back') THEN greatest(j.attempts - 1, 0) ELSE j.attempts END,
  completed_at = CASE WHEN e.what IN ('fail', 'cancel') THEN now() END,
  scheduled_for = CASE WHEN e.what IN ('retry', 'snooze', 'unavailable') THEN now() + e.delay * interval '1 s' ELSE j.scheduled_for END,
  error = coalesce(e.error, j.error), updated_at = now(),
  unavailable_since = CASE e.what WHEN 'unavailable' THEN coalesce(j.unavailable_since, now()) WHEN 'back' THEN j.unavailable_since END,
  lease = CASE e.what WHEN 'hold' THEN j.lease END, worker_id = NULL,
  held_until = CASE e.what WHEN 'hold' THEN now() + e.delay * interval '1 s' END
FROM ended e WHERE j.id = e.id RETURNING e.lease, e.what`

const registerSQL = `INSERT INTO {schema}.job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after)
VALUES ($1, $2, $3, $4, $5, $6::float8 * interval '1 s', $7::float8 * interval '1 s') RETURNING id`

// A worker that leaves jobs behind stays, as dead, so that they are reaped at once.
const unregisterSQL = `WITH gone AS (
  DELETE FROM {schema}.job_workers w WHERE w.id = $1
    AND NOT EXISTS (SELECT FROM {schema}.jobs j WHERE j.worker_id = $1 AND j.status = 'processing')
  RETURNING id
)
UPDATE {schema}.job_workers SET dead_at = now() WHERE id = $1 AND NOT EXISTS (SELECT FROM gone)`

// No row: the worker was declared dead. Locks that row alone.
const beatSQL = `UPDATE {schema}.job_workers SET heartbeat_at = clock_timestamp() WHERE id = $1 AND dead_at IS NULL RETURNING true`

// What this worker holds, as the database has it. Index: jobs_held.
const heldSQL = `SELECT id, lease, cancel_requested_at IS NOT NULL FROM {schema}.jobs WHERE worker_id = $1 AND status = 'processing'`

// Gives back jobs of a claim whose answer never came. $1 ids, $2 leases.
const releaseSQL = `UPDATE {schema}.jobs j SET
  status = 'pending', attempts = greatest(j.attempts - 1, 0), updated_at = now(), lease = NULL, worker_id = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
WHERE j.id = s.id AND j.lease = s.lease AND j.status = 'processing'`

// Workers other than $1 that hold jobs, with what speaks for their death: the heartbeat is older than the lease time, or
// their presence lock (jobs' oid, worker) is held by nobody. Also whether Postgres has run for less than a lease time: then
// sessions, and locks with them, are missing for another reason. A worker without a row is dead. Index: jobs_held, one
// probe a worker.
const suspectsSQL = `WITH RECURSIVE holder (id) AS (
  SELECT (SELECT min(j.worker_id) FROM {schema}.jobs j WHERE j.status = 'processing')
  UNION ALL
  SELECT (SELECT min(j.worker_id) FROM {schema}.jobs j WHERE j.status = 'processing' AND j.worker_id > h.id)
  FROM holder h WHERE h.id IS NOT NULL
)
SELECT h.id, coalesce(w.heartbeat_at, to_timestamp(0)), w.id IS NULL OR w.dead_at IS NOT NULL,
  coalesce(w.heartbeat_at < clock_timestamp() - w.lease_time, true),
  coalesce(extract(epoch FROM w.dead_after), 0)::float8,
  coalesce(pg_postmaster_start_time() < clock_timestamp() - w.lease_time, false) AND NOT EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid = {jobs} AND l.objid = h.id::bigint::oid)
FROM holder h LEFT JOIN {schema}.job_workers w ON w.id = h.id
WHERE h.id IS NOT NULL AND h.id <> $1`

// Locks the worker's row; a heartbeat since the look, $2, saves it.
const markDeadSQL = `UPDATE {schema}.job_workers SET dead_at = clock_timestamp()
WHERE id = $1 AND dead_at IS NULL AND heartbeat_at = $2 RETURNING true`

// The end of a lost attempt, for the two reapers below.
const reapSQL = `, noted AS (
  INSERT INTO {schema}.job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT l.id, l.lease, l.attempts, l.cause, l.worker_id, l.started_at FROM lost l WHERE l.lease IS NOT NULL
)
UPDATE {schema}.jobs j SET
  status = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN j.attempts >= j.max_attempts THEN 'failed'
    ELSE 'pending' END::{schema}.job_status,
  completed_at = CASE WHEN j.cancel_requested_at IS NOT NULL OR j.attempts >= j.max_attempts THEN now() END,
  scheduled_for = CASE WHEN j.crashes + l.crash < 2 THEN j.scheduled_for
    ELSE now() + least(interval '30 s' * 4 ^ least(j.crashes + l.crash - 2, 20), interval '1 day') END,
  error = l.cause || CASE WHEN j.attempts >= j.max_attempts THEN '; that was its last attempt' ELSE '' END,
  crashes = j.crashes + l.crash, updated_at = now(), lease = NULL, worker_id = NULL, held_until = NULL
FROM lost l WHERE j.id = l.id RETURNING j.status = 'pending'`

// Jobs of worker $1, which is dead. The first re-run is at once; from the second death on it backs off. What is locked is
// left for the next time. Index: jobs_held.
const reapWorkerSQL = `WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, 1 AS crash,
    format('worker %s died or lost touch with the database while it ran this job', j.worker_id) AS cause
  FROM {schema}.jobs j WHERE j.worker_id = $1 AND j.status = 'processing' ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
)` + reapSQL

// Jobs that no sidecar holds, past their time: claimed by claim_jobs, or accepted and never settled; and those that
// somebody set to processing without a time. Index: jobs_held.
const reapHeldSQL = `WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, 0 AS crash,
    'not settled within the time that its holder had'::text AS cause
  FROM {schema}.jobs j
  WHERE j.worker_id IS NULL AND j.status = 'processing' AND (j.held_until < now() OR j.held_until IS NULL AND j.updated_at < now()
    - (SELECT s.value::interval FROM {schema}.job_settings s WHERE s.name = 'manual_lease'))
  ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
)` + reapSQL

const saveManualLeaseSQL = `INSERT INTO {schema}.job_settings AS s (name, value) VALUES ('manual_lease', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value`

const pauseTypeSQL = `SELECT {schema}.pause_type($1, $2)`

// What a survey looks at beside suspectsSQL and reapHeldSQL: seconds until a job that a living worker handles is due, whether or
// not it is its own; seconds until the time of a job without a worker ends; whether there are more types than $1; types
// with a job that has been due for a minute and that no living worker handles. Of each type the first hundred priorities.
// Index: jobs_claim, one probe for each type and priority, and jobs_held, one probe.
const prospectSQL = `WITH RECURSIVE present (type) AS (
  SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending')
  UNION ALL
  SELECT (SELECT min(j.type) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > p.type)
  FROM present p WHERE p.type IS NOT NULL
), handled AS MATERIALIZED (
  SELECT DISTINCT unnest(w.types) AS type FROM {schema}.job_workers w
  WHERE w.dead_at IS NULL AND w.heartbeat_at > now() - interval '3 min'
), first AS MATERIALIZED (
  SELECT p.type, n.due, EXISTS (SELECT FROM handled h WHERE h.type IN (p.type, '*')) AS handled,
    EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = p.type AND t.paused_at IS NOT NULL) AS paused
  FROM (SELECT p.type FROM present p WHERE p.type IS NOT NULL LIMIT $1::int) p CROSS JOIN LATERAL (
    WITH RECURSIVE level (priority) AS (
      SELECT (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = p.type)
      UNION ALL
      SELECT (SELECT max(j.priority) FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = p.type AND j.priority < l.priority)
      FROM level l WHERE l.priority IS NOT NULL
    )
    SELECT min(j.scheduled_for) AS due FROM (SELECT l.priority FROM level l WHERE l.priority IS NOT NULL LIMIT 100) l
    CROSS JOIN LATERAL (
      SELECT j.scheduled_for FROM {schema}.jobs j
      WHERE j.status = 'pending' AND j.type = p.type AND j.priority = l.priority
      ORDER BY j.scheduled_for, j.id LIMIT 1
    ) j
  ) n
)
SELECT extract(epoch FROM min(f.due) FILTER (WHERE f.handled AND NOT f.paused) - clock_timestamp())::float8,
  (SELECT extract(epoch FROM j.held_until - clock_timestamp())::float8 FROM {schema}.jobs j
   WHERE j.status = 'processing' AND j.worker_id IS NULL AND isfinite(j.held_until) ORDER BY j.worker_id, j.held_until LIMIT 1),
  count(*) >= $1::int,
  coalesce(array_agg(f.type ORDER BY f.type) FILTER (WHERE NOT f.handled AND f.due < now() - interval '1 min'), '{}')
FROM first f`

// What the jobs table is like, for the walk and the watch over dead rows; and whether it is for worker $1 to prune: it has
// run for longer than any other that lives.
const tableSQL = `SELECT pg_relation_size({jobs}) / current_setting('block_size')::int, pg_relation_filenode({jobs})::int8,
  coalesce($1 = (SELECT min(w.id) FROM {schema}.job_workers w WHERE w.dead_at IS NULL AND w.heartbeat_at > now() - interval '3 min'), false),
  pg_stat_get_dead_tuples({jobs}), pg_stat_get_live_tuples({jobs})`

// When a finished job comes of age: it is kept for $3 if completed, $4 failed, $5 cancelled, in seconds, null for ever, from its
// end or from its last change if that was later ...
const ripeSQL = `greatest(j.completed_at, j.updated_at) + CASE j.status
  WHEN 'completed' THEN $3::float8 * interval '1 s' WHEN 'failed' THEN $4::float8 * interval '1 s'
  WHEN 'cancelled' THEN $5::float8 * interval '1 s' END`

// ... and the table's pages $1 up to $2. A walk over the heap by TID range, so that retention needs no index that each settle
// would have to pay for.
const pagesSQL = `j.ctid >= format('(%s,0)', $1::int8)::tid AND j.ctid < format('(%s,0)', $2::int8)::tid`

// How many jobs are past their age, and seconds until the next one is.
const gleanSQL = `SELECT count(*) FILTER (WHERE a.ripe <= now()),
  extract(epoch FROM min(a.ripe) FILTER (WHERE a.ripe > now() AND isfinite(a.ripe)) - now())::float8
FROM (SELECT ` + ripeSQL + ` AS ripe FROM {schema}.jobs j WHERE ` + pagesSQL + `) a`

// Deletes $6 of them, with their errors. Passes over rows that somebody has locked.
const pruneSQL = `WITH old AS MATERIALIZED (
  SELECT j.ctid FROM {schema}.jobs j WHERE ` + pagesSQL + ` AND ` + ripeSQL + ` <= now() LIMIT $6::int FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM {schema}.jobs j WHERE j.ctid = ANY (ARRAY(SELECT o.ctid FROM old o)) RETURNING j.id
), forgotten AS (
  DELETE FROM {schema}.job_errors e WHERE e.job_id = ANY (ARRAY(SELECT g.id FROM gone g))
)
SELECT count(*) FROM gone`

// Workers that died a day ago, or were never seen again and hold nothing.
const pruneWorkersSQL = `DELETE FROM {schema}.job_workers w
WHERE coalesce(w.dead_at, w.heartbeat_at) < now() - interval '1 day'
  AND NOT EXISTS (SELECT FROM {schema}.jobs j WHERE j.worker_id = w.id AND j.status = 'processing')`

// Wakes the others: a new worker may take what nobody had a handler for, and its crash is to be noticed.
const ringSQL = `SELECT {schema}.ring_jobs()`

// What keeps vacuum from removing dead rows of this database's tables, the oldest first: transactions of sessions, the snapshots
// that standbys report, prepared transactions, and replication slots. Age in transactions, and in seconds of the
// transaction and of its last statement; whether this role may see no more of it than that it is there. The horizon that a VACUUM
// has itself holds back nobody.
const horizonSQL = `SELECT * FROM (
  SELECT CASE a.backend_type WHEN 'walsender' THEN 'standby' ELSE 'session' END, a.pid, coalesce(a.application_name, ''),
    coalesce(a.usename::text, ''), coalesce(host(a.client_addr), ''), coalesce(a.state, ''),
    greatest(age(a.backend_xid), age(a.backend_xmin))::int8 AS behind,
    extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS since,
    extract(epoch FROM clock_timestamp() - a.query_start)::float8, a.xact_start::text, false
  FROM pg_stat_activity a
  WHERE (a.datname = current_database() OR a.backend_type = 'walsender') AND a.pid <> pg_backend_pid()
    AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL) AND a.backend_type <> 'autovacuum worker'
    AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
  UNION ALL
  SELECT 'session', a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, ''), '', '',
    (SELECT max(age(x.transactionid))::int8 FROM pg_locks x WHERE x.pid = a.pid AND x.locktype = 'transactionid' AND x.granted),
    NULL, NULL, l.virtualxid, true
  FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted
  WHERE a.datname = current_database() AND a.backend_type IS NULL AND l.virtualxid = l.virtualtransaction
  UNION ALL
  SELECT 'prepared transaction', 0, p.gid, p.owner::text, '', '', age(p.transaction)::int8,
    extract(epoch FROM clock_timestamp() - p.prepared)::float8, NULL, p.prepared::text, false
  FROM pg_prepared_xacts p WHERE p.database = current_database()
  UNION ALL
  SELECT 'replication slot', coalesce(s.active_pid, 0), s.slot_name::text, '', '', CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
    age(s.xmin)::int8, NULL, NULL, '', false
  FROM pg_replication_slots s WHERE s.xmin IS NOT NULL
) h ORDER BY h.behind DESC NULLS LAST, h.since DESC NULLS LAST LIMIT 20`
