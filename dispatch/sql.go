package dispatch

import (
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// statements are all that a Dispatcher says to the database, with the schema filled in.
type statements struct {
	claim, claimMerged, next, walk, walkOthers string
	complete, completeGone, settle             string
	completeTx, completeTxGone, unlocked       string
	register, unregister, beat, held, release  string
	suspects, markDead, reapWorker, reapHeld   string
	saveManualLease, pauseType, ring           string
	prospect, table, glean, prune              string
	pruneWorkers, payload                      string
	plain, plainSettle, briefly                string // settings, which come before them
}

// newStatements: the server ends a statement that takes longer than patience, and the connection stays. The client's own limit would
// close it, and where the server doesn't learn of that the statement would go on waiting there.
func newStatements(schema string, patience time.Duration) statements {
	quoted := pgx.Identifier{schema}.Sanitize()
	literal := func(table string) string {
		return "'" + strings.ReplaceAll(quoted+"."+table, "'", "''") + "'::regclass"
	}
	in := strings.NewReplacer("{schema}", quoted, "{jobs}", literal("jobs"), "{patience}", strconv.FormatInt(max(patience.Milliseconds(), 1), 10)).Replace
	return statements{
		claim: in(claimSQL), claimMerged: in(claimMergedSQL), next: in(nextSQL), walk: in(walkSQL), walkOthers: in(walkOthersSQL),
		complete: in(completeSQL), completeGone: in(completeGoneSQL), settle: in(settleSQL),
		completeTx: in(completeTxSQL), completeTxGone: in(completeTxGoneSQL), unlocked: in(unlockedSQL),
		register: in(registerSQL), unregister: in(unregisterSQL), beat: in(beatSQL), held: in(heldSQL), release: in(releaseSQL),
		suspects: in(suspectsSQL), markDead: in(markDeadSQL), reapWorker: in(reapWorkerSQL), reapHeld: in(reapHeldSQL),
		saveManualLease: in(saveManualLeaseSQL), pauseType: in(pauseTypeSQL), ring: in(ringSQL),
		prospect: in(prospectSQL), table: in(tableSQL), glean: in(gleanSQL), prune: in(pruneSQL), pruneWorkers: in(pruneWorkersSQL),
		plain: in(plainSQL), plainSettle: in(plainSettleSQL), briefly: in(brieflySQL),
		payload: in(payloadSQL),
	}
}

// For the transaction of one statement alone: it ends by itself.
const brieflySQL = `SELECT set_config('statement_timeout', '{patience}', true)`

// For the others too: plans that follow the indexes whatever the statistics say, made once. A queue's
// statistics are always wrong, and a plan that reads or sorts the table, or is compiled for tens of milliseconds, costs more
// than it can gain. A table that somebody has locked is tried again after a second, so that no server process waits for it meanwhile;
// rows that are locked are passed over.
const plainSQL = `SELECT set_config('jit', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
  set_config('plan_cache_mode', 'force_generic_plan', true), set_config('statement_timeout', '{patience}', true),
  set_config('lock_timeout', '1s', true)`

// For settles too, which must not wait long for a row that somebody has locked: others of the batch aren't.
const plainSettleSQL = plainSQL + `, set_config('lock_timeout', '200ms', true)`

// Which of the jobs $1 with the leases $2 are locked by nobody, at present.
const unlockedSQL = `SELECT j.lease FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
JOIN {schema}.jobs j ON j.id = s.id AND j.lease = s.lease FOR NO KEY UPDATE OF j SKIP LOCKED`

const notPausedSQL = `NOT EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL)`

// The due jobs of level l after its mark (see levels), in their order. Index: jobs_claim.
const dueSQL = `FROM {schema}.jobs j
    WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
      AND (j.scheduled_for, j.id) > (l.due, l.id)
    ORDER BY j.scheduled_for, j.id`

// $1 worker, $2 whether to renew its heartbeat, $3 bytes of the biggest payload, $4 the most of all; the levels: $5 types,
// $6 priorities, $7 and $8 after which due time and id to begin; levels of one type, in order of priority. Locks only what
// it claims: FOR NO KEY UPDATE, as foreign keys' locks don't conflict with it, SKIP LOCKED, as another claim may be there
// first.
const claimSQL = `WITH locked AS MATERIALIZED (
  SELECT j.ctid FROM unnest($5::text[], $6::int[], $7::timestamptz[], $8::uuid[]) AS l(type, priority, due, id) CROSS JOIN LATERAL (
    SELECT j.ctid ` + dueSQL + ` LIMIT $4::int FOR NO KEY UPDATE SKIP LOCKED
  ) j WHERE ` + notPausedSQL + ` LIMIT $4::int
` + updateSQL

// The same for levels of many types: $9 types, $10 the most of each, $11 whether it is one of those that share $12 jobs.
// The candidates of all levels are merged without locks, so that priority and due time hold across types. That gives a
// quota for each level, and as many rows are then locked.
const claimMergedSQL = `WITH level AS MATERIALIZED (
  SELECT l.type, l.priority, l.due, l.id FROM unnest($5::text[], $6::int[], $7::timestamptz[], $8::uuid[]) AS l(type, priority, due, id)
  WHERE ` + notPausedSQL + `
), wanted AS MATERIALIZED (
  SELECT w.type, w.most, w.other FROM unnest($9::text[], $10::int[], $11::bool[]) AS w(type, most, other)
), candidate AS MATERIALIZED (
  SELECT c.type, c.priority, c.due, c.id, c.scheduled_for, c.job, w.other FROM wanted w CROSS JOIN LATERAL (
    SELECT l.type, l.priority, l.due, l.id, j.scheduled_for, j.job FROM level l CROSS JOIN LATERAL (
      SELECT j.scheduled_for, j.id AS job ` + dueSQL + ` LIMIT w.most
    ) j WHERE l.type = w.type ORDER BY l.priority DESC, j.scheduled_for, j.job LIMIT w.most
  ) c
), quota AS MATERIALIZED (
  SELECT d.type, d.priority, d.due, d.id, count(*) AS most FROM (
    SELECT u.type, u.priority, u.due, u.id FROM (
      SELECT * FROM candidate c WHERE NOT c.other
      UNION ALL
      (SELECT * FROM candidate c WHERE c.other ORDER BY c.priority DESC, c.scheduled_for, c.job LIMIT $12::int)
    ) u ORDER BY u.priority DESC, u.scheduled_for, u.job LIMIT $4::int
  ) d GROUP BY d.type, d.priority, d.due, d.id
), locked AS MATERIALIZED (
  SELECT j.ctid FROM quota l CROSS JOIN LATERAL (
    SELECT j.ctid ` + dueSQL + ` LIMIT l.most FOR NO KEY UPDATE SKIP LOCKED
  ) j
` + updateSQL

// A claim from no jobs to some renews the worker's heartbeat in the same statement, unless it is fresh; any claim needs the
// worker to be alive. ctid is safe to go by, and their status is still pending, as the rows are locked; to ask for it would
// let a plan that was made while the table was empty read all of jobs_claim for them. The order is that of the table. A payload
// that is or may be big is left out (size -1): a hundred million bytes, which compress to one million, take a second to write as
// text, and all that is claimed with it would wait.
const updateSQL = `), renewed AS (
  UPDATE {schema}.job_workers SET heartbeat_at = clock_timestamp()
  WHERE id = $1::int AND dead_at IS NULL AND $2::bool AND EXISTS (SELECT FROM locked)
  RETURNING id
), claimed AS (
  UPDATE {schema}.jobs j SET
    status = 'processing', attempts = j.attempts + 1, started_at = now(), updated_at = now(),
    lease = gen_random_uuid(), worker_id = $1::int, held_until = NULL
  WHERE j.ctid = ANY (ARRAY(SELECT l.ctid FROM locked l))
    AND (EXISTS (SELECT FROM renewed)
      OR NOT $2::bool AND EXISTS (SELECT FROM {schema}.job_workers w WHERE w.id = $1::int AND w.dead_at IS NULL))
  RETURNING j.id, j.type, CASE WHEN ` + isHandyPayload + ` THEN j.payload::text END AS payload, j.priority, j.attempts, j.max_attempts,
    j.created_at, j.scheduled_for, j.lease, j.crashes, CASE WHEN ` + isHandyMetadata + ` THEN j.metadata::text END AS metadata, j.timeout
)
SELECT c.id, c.type, CASE WHEN octet_length(c.payload) <= $3::int THEN c.payload END,
  CASE WHEN c.payload IS NULL THEN -1 WHEN octet_length(c.payload) > $3::int THEN octet_length(c.payload) END,
  c.priority, c.attempts, c.max_attempts, c.created_at, c.scheduled_for, c.lease, c.crashes,
  CASE WHEN octet_length(c.metadata) <= 65536 THEN c.metadata END, c.timeout, clock_timestamp()
FROM claimed c`

// Handy: by its size in the table, which is there without reading it, a value is small as text too. pglz compresses to a
// ninetieth at most, lz4 to a 255th.
const (
	isHandyPayload  = `(pg_column_size(j.payload) <= 4096 OR pg_column_size(j.payload) <= 262144 AND pg_column_compression(j.payload) IS NULL)`
	isHandyMetadata = `(pg_column_size(j.metadata) <= 4096 OR pg_column_size(j.metadata) <= 262144 AND pg_column_compression(j.metadata) IS NULL)`
)

// The payload of job $1 under the lease $2, if it has at most $3 bytes, and how many it has. What takes more than four times as much
// in the table does so as text, too. Index: the primary key.
const payloadSQL = `SELECT CASE WHEN octet_length(t.payload) <= $3::int THEN t.payload END, coalesce(octet_length(t.payload), t.stored)
FROM (
  SELECT pg_column_size(j.payload) AS stored, CASE WHEN pg_column_size(j.payload) / 4 <= $3::int THEN j.payload::text END AS payload
  FROM {schema}.jobs j WHERE j.id = $1::uuid AND j.lease = $2::uuid OFFSET 0
) t`

// Seconds until the next job of the levels $1 and $2 is due that was not $3 seconds ago, when a claim took all that were.
// Index: jobs_claim, one probe a level.
const nextSQL = `SELECT extract(epoch FROM min(n.scheduled_for) - clock_timestamp())::float8
FROM unnest($1::text[], $2::int[]) AS l(type, priority) CROSS JOIN LATERAL (
  SELECT j.scheduled_for FROM {schema}.jobs j
  WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for > now() - $3::float8 * interval '1 s'
  ORDER BY j.scheduled_for LIMIT 1
) n`

// The first job of each level of the types $1 with a priority below $3, at most $2 levels: the first job of a type, and then the
// first with a lower priority again and again, one probe of jobs_claim each. Takes no locks, so it also sees jobs that a claim has
// to pass over because another transaction has them locked.
const walkSQL = `WITH RECURSIVE head (type, priority, due, id) AS (
  SELECT l.type, l.below, NULL::timestamptz, NULL::uuid FROM unnest($1::text[], $3::int8[]) AS l(type, below) WHERE ` + notPausedSQL + `
  UNION ALL
  SELECT h.type, n.priority, n.scheduled_for, n.id FROM head h CROSS JOIN LATERAL (
    SELECT j.priority::int8, j.scheduled_for, j.id FROM {schema}.jobs j
    WHERE j.status = 'pending' AND j.type = h.type AND j.priority < h.priority ORDER BY j.priority DESC, j.scheduled_for, j.id LIMIT 1
  ) n
)
SELECT h.type, h.priority::int4, h.due, h.id, extract(epoch FROM h.due - clock_timestamp())::float8 FROM head h
WHERE h.due IS NOT NULL LIMIT $2::int`

// The same for all types but $1, from the level of type $3 and priority $4 on, which is left out: after the last priority of a
// type comes the first of the next.
const walkOthersSQL = `WITH RECURSIVE head (type, priority, due, id) AS (
  SELECT $3::text, $4::int4, NULL::timestamptz, NULL::uuid
  UNION ALL
  SELECT n.type, n.priority, n.scheduled_for, n.id FROM head h CROSS JOIN LATERAL (
    (SELECT j.type, j.priority, j.scheduled_for, j.id FROM {schema}.jobs j
     WHERE j.status = 'pending' AND j.type = h.type AND j.priority < h.priority AND h.type <> ALL ($1::text[])
     ORDER BY j.priority DESC, j.scheduled_for, j.id LIMIT 1)
    UNION ALL
    (SELECT j.type, j.priority, j.scheduled_for, j.id FROM {schema}.jobs j
     WHERE j.status = 'pending' AND j.type > h.type ORDER BY j.type, j.priority DESC, j.scheduled_for, j.id LIMIT 1)
    LIMIT 1
  ) n
)
SELECT l.type, l.priority, l.due, l.id, extract(epoch FROM l.due - clock_timestamp())::float8 FROM head l
WHERE l.due IS NOT NULL AND l.type <> ALL ($1::text[]) AND ` + notPausedSQL + ` LIMIT $2::int`

// $1 ids, $2 leases, $3 results: a JSON object by lease, or null. The fence: a job is settled by the holder of its current
// lease alone. Index: the primary key. (The cast keeps the planner, who thinks that next to nothing is ever processing, from
// jobs_held with all its dead entries.)
const completeSQL = `UPDATE {schema}.jobs j SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::jsonb -> j.lease::text,
  lease = NULL, worker_id = NULL, held_until = NULL, unavailable_since = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease) WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'`

// The same where completed jobs are not kept: their rows go at once, those of their errors with them.
const completeGoneSQL = `WITH gone AS (
  DELETE FROM {schema}.jobs j USING unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
  WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing' RETURNING j.id
), forgotten AS (
  DELETE FROM {schema}.job_errors o USING gone g WHERE o.job_id = g.id
)
SELECT FROM gone`

// The two for one job in a transaction of the handler's. $1 id, $2 lease, $3 result.
const completeTxSQL = `UPDATE {schema}.jobs SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::text::jsonb,
  lease = NULL, worker_id = NULL, held_until = NULL
WHERE id = $1::uuid AND lease = $2::uuid AND status = 'processing'`

const completeTxGoneSQL = `WITH gone AS (
  DELETE FROM {schema}.jobs WHERE id = $1::uuid AND lease = $2::uuid AND status = 'processing' AND ($3::text IS NULL OR true) RETURNING id
), forgotten AS (
  DELETE FROM {schema}.job_errors o USING gone g WHERE o.job_id = g.id
)
SELECT FROM gone`

// All other ends of an attempt. $1 ids, $2 leases, $3 a JSON object by lease of {what (see verdict), error, delay in seconds},
// $4 and $5 whether failed and cancelled jobs are kept. retry and fail are failed attempts, noted in job_errors (the newest
// hundred of a job are kept). snooze, unavailable and back give the attempt back; unavailable does so for 24 h at most. hold
// passes the job on to whoever has its lease. A job whose cancel was asked for is cancelled, unless it is held on. Returns
// what became of each. Index: the primary key.
const settleSQL = `WITH ended AS MATERIALIZED (
  SELECT w.*, w.what = 'fail' AND NOT $4::bool OR w.what = 'cancel' AND NOT $5::bool AS gone FROM (
    SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, s.error, s.delay,
      CASE
        WHEN s.what = 'hold' THEN s.what
        WHEN j.cancel_requested_at IS NOT NULL THEN 'cancel'
        WHEN s.what = 'retry' AND j.attempts >= j.max_attempts THEN 'fail'
        WHEN s.what = 'unavailable' AND j.unavailable_since < now() - interval '24 h' THEN 'fail'
        ELSE s.what
      END AS what
    FROM (
      SELECT k.id, k.lease, o.v ->> 'what' AS what, o.v ->> 'error' AS error, (o.v ->> 'delay')::float8 AS delay
      FROM unnest($1::uuid[], $2::uuid[]) AS k(id, lease) CROSS JOIN LATERAL (SELECT $3::jsonb -> k.lease::text AS v) o
    ) s JOIN {schema}.jobs j ON j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'
    ORDER BY j.id FOR NO KEY UPDATE OF j
  ) w
), noted AS (
  INSERT INTO {schema}.job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT e.id, e.lease, e.attempts, coalesce(e.error, ''), e.worker_id, e.started_at FROM ended e
  WHERE e.what IN ('retry', 'fail') AND NOT e.gone
), forgotten AS (
  DELETE FROM {schema}.job_errors o USING ended e
  WHERE o.job_id = e.id AND (e.gone OR e.attempts > 100 AND o.attempt <= e.attempts - 100)
), gone AS (
  DELETE FROM {schema}.jobs j USING ended e WHERE j.id = e.id AND e.gone RETURNING e.lease, e.what
), kept AS (
  UPDATE {schema}.jobs j SET
    status = CASE e.what WHEN 'hold' THEN 'processing' WHEN 'cancel' THEN 'cancelled' WHEN 'fail' THEN 'failed'
      ELSE 'pending' END::{schema}.job_status,
    attempts = CASE WHEN e.what IN ('snooze', 'unavailable', 'back') THEN greatest(j.attempts - 1, 0) ELSE j.attempts END,
    completed_at = CASE WHEN e.what IN ('fail', 'cancel') THEN now() END,
    scheduled_for = CASE WHEN e.what IN ('retry', 'snooze', 'unavailable') THEN now() + e.delay * interval '1 s'
      WHEN e.what = 'back' THEN least(j.scheduled_for, now()) ELSE j.scheduled_for END,
    error = coalesce(e.error, j.error), updated_at = now(),
    unavailable_since = CASE e.what WHEN 'unavailable' THEN coalesce(j.unavailable_since, now()) WHEN 'back' THEN j.unavailable_since END,
    lease = CASE e.what WHEN 'hold' THEN j.lease END, worker_id = NULL,
    held_until = CASE e.what WHEN 'hold' THEN now() + e.delay * interval '1 s' END
  FROM ended e WHERE j.id = e.id AND NOT e.gone RETURNING e.lease, e.what
)
SELECT * FROM kept UNION ALL SELECT * FROM gone`

// How many other workers live.
const othersSQL = `(SELECT count(*)::int FROM {schema}.job_workers o
  WHERE o.dead_at IS NULL AND o.id <> job_workers.id AND o.heartbeat_at > now() - interval '5 min')`

const registerSQL = `INSERT INTO {schema}.job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after)
VALUES ($1, $2, $3, $4, $5, $6::float8 * interval '1 s', $7::float8 * interval '1 s') RETURNING id, ` + othersSQL

// How many jobs worker $1 holds, counted up to two. Index: jobs_held.
const companySQL = `(SELECT count(*)::int FROM (SELECT FROM {schema}.jobs c WHERE c.worker_id = $1::int AND c.status = 'processing' LIMIT 2) c)`

// A worker that leaves jobs behind stays, as dead, so that they are reaped at once.
const unregisterSQL = `WITH gone AS (
  DELETE FROM {schema}.job_workers w WHERE w.id = $1
    AND NOT EXISTS (SELECT FROM {schema}.jobs j WHERE j.worker_id = $1 AND j.status = 'processing')
  RETURNING id
)
UPDATE {schema}.job_workers SET dead_at = now(), held_at_death = ` + companySQL + ` WHERE id = $1 AND NOT EXISTS (SELECT FROM gone)`

// No row: the worker was declared dead. Locks that row alone.
const beatSQL = `UPDATE {schema}.job_workers SET heartbeat_at = clock_timestamp() WHERE id = $1 AND dead_at IS NULL RETURNING ` + othersSQL

// What this worker holds, as the database has it. Index: jobs_held.
const heldSQL = `SELECT id, lease, cancel_requested_at IS NOT NULL FROM {schema}.jobs WHERE worker_id = $1 AND status = 'processing'`

// Gives back jobs of a claim whose answer never came. They were due, and are so by a clock that was set back meanwhile. $1 ids,
// $2 leases.
const releaseSQL = `UPDATE {schema}.jobs j SET
  status = 'pending', attempts = greatest(j.attempts - 1, 0), scheduled_for = least(j.scheduled_for, now()), updated_at = now(),
  lease = NULL, worker_id = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'`

// Workers other than $1 that hold jobs, with what speaks for their death: the heartbeat, whose age only we can tell (suspicions),
// or that their presence lock (jobs' oid, worker) is held by nobody, unless Postgres has run for less than a lease time: then
// sessions, and locks with them, are missing for another reason; and which server says so. A worker without a row is dead.
// Index: jobs_held, one probe a worker.
const suspectsSQL = `WITH RECURSIVE holder (id) AS (
  SELECT (SELECT j.worker_id FROM {schema}.jobs j WHERE j.status = 'processing' ORDER BY j.worker_id LIMIT 1)
  UNION ALL
  SELECT (SELECT j.worker_id FROM {schema}.jobs j WHERE j.status = 'processing' AND j.worker_id > h.id ORDER BY j.worker_id LIMIT 1)
  FROM holder h WHERE h.id IS NOT NULL
)
SELECT h.id, coalesce(w.heartbeat_at, to_timestamp(0)), w.id IS NULL OR w.dead_at IS NOT NULL,
  coalesce(extract(epoch FROM w.lease_time), 0)::float8, coalesce(extract(epoch FROM w.dead_after), 0)::float8,
  coalesce(clock_timestamp() - pg_postmaster_start_time() NOT BETWEEN interval '0' AND w.lease_time, false) AND NOT EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid = {jobs} AND l.objid = h.id::bigint::oid), pg_postmaster_start_time()
FROM holder h LEFT JOIN {schema}.job_workers w ON w.id = h.id
WHERE h.id IS NOT NULL AND h.id <> $1`

// Locks the worker's row; a heartbeat since the look, $2, saves it.
const markDeadSQL = `UPDATE {schema}.job_workers SET dead_at = clock_timestamp(), held_at_death = ` + companySQL + `
WHERE id = $1 AND dead_at IS NULL AND heartbeat_at = $2 RETURNING true`

// The end of a lost attempt, for the two reapers below, as they tell it: crash is 1 if the death of a worker counts, forgiven whether the
// attempt is given back. A job that died alone pays for all its deaths, those that were forgiven too.
const reapSQL = `, noted AS (
  INSERT INTO {schema}.job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT l.id, l.lease, l.attempts, l.cause, l.worker_id, l.started_at FROM lost l WHERE l.lease IS NOT NULL
), ended AS (
  SELECT u.id, u.cause, u.crashes, u.used, u.cancelled, u.used >= u.max_attempts AND NOT u.forgiven AND NOT u.cancelled AS failed FROM (
    SELECT l.id, l.cause, l.forgiven, l.max_attempts, l.cancelled, l.crashes + l.crash AS crashes,
      CASE WHEN l.forgiven THEN greatest(l.attempts - 1, 0) ELSE greatest(l.attempts, l.crash * (l.crashes + l.crash)) END AS used
    FROM lost l
  ) u
)
UPDATE {schema}.jobs j SET
  status = CASE WHEN e.cancelled THEN 'cancelled' WHEN e.failed THEN 'failed' ELSE 'pending' END::{schema}.job_status,
  completed_at = CASE WHEN e.cancelled OR e.failed THEN now() END,
  scheduled_for = CASE WHEN e.failed OR e.cancelled THEN j.scheduled_for WHEN e.crashes < 2 THEN least(j.scheduled_for, now())
    ELSE now() + least(interval '30 s' * 4 ^ least(e.crashes - 2, 20), interval '1 day') * (1 + random() / 4) END,
  error = e.cause || CASE
    WHEN e.failed AND e.crashes > 1 THEN format('; that was its last attempt: %s of %s ended with the death of its worker', e.crashes, e.used)
    WHEN e.failed THEN '; that was its last attempt' ELSE '' END,
  attempts = e.used, crashes = e.crashes, updated_at = now(), lease = NULL, worker_id = NULL, held_until = NULL
FROM ended e WHERE j.id = e.id RETURNING j.status = 'pending'`

// Jobs of worker $1, which is dead. The first re-run is at once; from the second death on it backs off, and runs alone (see
// solitude). Of jobs that died together any may have been the cause, so their attempts are given back; but not to a job that
// is to be tried only once. One that was waiting to run alone was none, and its death doesn't count; it backs off all the
// same, as a sidecar of 0.1.0 lets none wait. What is locked is left for the next time. Index: jobs_held.
const reapWorkerSQL = `WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.max_attempts, j.crashes, j.worker_id, j.started_at, j.cancel_requested_at IS NOT NULL AS cancelled,
    CASE WHEN f.company AND j.crashes >= 2 THEN 0 ELSE 1 END AS crash, f.company AND j.max_attempts > 1 AS forgiven,
    format('worker %s died or lost touch with the database while it ran this job%s', j.worker_id,
      CASE WHEN f.company THEN ' and others' ELSE ' alone' END) AS cause
  FROM {schema}.jobs j, (
    SELECT coalesce((SELECT w.held_at_death FROM {schema}.job_workers w WHERE w.id = $1::int), ` + companySQL + `) > 1 AS company
  ) f
  WHERE j.worker_id = $1::int AND j.status = 'processing' ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE OF j SKIP LOCKED
)` + reapSQL

// Jobs that no sidecar holds, past their time: claimed by claim_jobs, or accepted and never settled; and those that
// somebody set to processing without a time. Index: jobs_held.
const reapHeldSQL = `WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.max_attempts, j.crashes, j.worker_id, j.started_at, j.cancel_requested_at IS NOT NULL AS cancelled,
    0 AS crash, false AS forgiven, 'not settled within the time that its holder had'::text AS cause
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
  SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' ORDER BY j.type LIMIT 1)
  UNION ALL
  SELECT (SELECT j.type FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type > p.type ORDER BY j.type LIMIT 1)
  FROM present p WHERE p.type IS NOT NULL
), handled AS MATERIALIZED (
  SELECT DISTINCT unnest(w.types) AS type FROM {schema}.job_workers w
  WHERE w.dead_at IS NULL AND w.heartbeat_at > now() - interval '3 min'
), first AS MATERIALIZED (
  SELECT p.type, n.due, EXISTS (SELECT FROM handled h WHERE h.type IN (p.type, '*')) AS handled,
    EXISTS (SELECT FROM {schema}.job_types t WHERE t.type = p.type AND t.paused_at IS NOT NULL) AS paused
  FROM (SELECT p.type FROM present p WHERE p.type IS NOT NULL LIMIT $1::int) p CROSS JOIN LATERAL (
    WITH RECURSIVE level (priority) AS (
      SELECT (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = p.type ORDER BY j.priority DESC LIMIT 1)
      UNION ALL
      SELECT (SELECT j.priority FROM {schema}.jobs j WHERE j.status = 'pending' AND j.type = p.type AND j.priority < l.priority ORDER BY j.priority DESC LIMIT 1)
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
