-- What sidecars of pgbell 0.1.0 say to the database, in the schema public: of its release, never changed.

-- name: claim
WITH locked AS MATERIALIZED (
  SELECT j.ctid FROM unnest($5::text[], $6::int[], $7::timestamptz[], $8::uuid[]) AS l(type, priority, due, id) CROSS JOIN LATERAL (
    SELECT j.ctid FROM "public".jobs j
    WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
      AND (j.scheduled_for, j.id) > (l.due, l.id)
    ORDER BY j.scheduled_for, j.id LIMIT $4::int FOR NO KEY UPDATE SKIP LOCKED
  ) j WHERE NOT EXISTS (SELECT FROM "public".job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL) LIMIT $4::int
), renewed AS (
  UPDATE "public".job_workers SET heartbeat_at = clock_timestamp()
  WHERE id = $1::int AND dead_at IS NULL AND $2::bool AND EXISTS (SELECT FROM locked)
  RETURNING id
), claimed AS (
  UPDATE "public".jobs j SET
    status = 'processing', attempts = j.attempts + 1, started_at = now(), updated_at = now(),
    lease = gen_random_uuid(), worker_id = $1::int, held_until = NULL
  WHERE j.ctid = ANY (ARRAY(SELECT l.ctid FROM locked l))
    AND (EXISTS (SELECT FROM renewed)
      OR NOT $2::bool AND EXISTS (SELECT FROM "public".job_workers w WHERE w.id = $1::int AND w.dead_at IS NULL))
  RETURNING j.id, j.type, j.payload::text AS payload, j.priority, j.attempts, j.max_attempts, j.created_at, j.scheduled_for,
    j.lease, j.crashes, j.metadata::text AS metadata, j.timeout
)
SELECT c.id, c.type, CASE WHEN octet_length(c.payload) <= $3::int THEN c.payload END,
  CASE WHEN octet_length(c.payload) > $3::int THEN octet_length(c.payload) END,
  c.priority, c.attempts, c.max_attempts, c.created_at, c.scheduled_for, c.lease, c.crashes,
  CASE WHEN octet_length(c.metadata) <= 65536 THEN c.metadata END, c.timeout, clock_timestamp()
FROM claimed c

-- name: claimMerged
WITH level AS MATERIALIZED (
  SELECT l.type, l.priority, l.due, l.id FROM unnest($5::text[], $6::int[], $7::timestamptz[], $8::uuid[]) AS l(type, priority, due, id)
  WHERE NOT EXISTS (SELECT FROM "public".job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL)
), wanted AS MATERIALIZED (
  SELECT w.type, w.most, w.other FROM unnest($9::text[], $10::int[], $11::bool[]) AS w(type, most, other)
), candidate AS MATERIALIZED (
  SELECT c.type, c.priority, c.due, c.id, c.scheduled_for, c.job, w.other FROM wanted w CROSS JOIN LATERAL (
    SELECT l.type, l.priority, l.due, l.id, j.scheduled_for, j.job FROM level l CROSS JOIN LATERAL (
      SELECT j.scheduled_for, j.id AS job FROM "public".jobs j
    WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
      AND (j.scheduled_for, j.id) > (l.due, l.id)
    ORDER BY j.scheduled_for, j.id LIMIT w.most
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
    SELECT j.ctid FROM "public".jobs j
    WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for <= now()
      AND (j.scheduled_for, j.id) > (l.due, l.id)
    ORDER BY j.scheduled_for, j.id LIMIT l.most FOR NO KEY UPDATE SKIP LOCKED
  ) j
), renewed AS (
  UPDATE "public".job_workers SET heartbeat_at = clock_timestamp()
  WHERE id = $1::int AND dead_at IS NULL AND $2::bool AND EXISTS (SELECT FROM locked)
  RETURNING id
), claimed AS (
  UPDATE "public".jobs j SET
    status = 'processing', attempts = j.attempts + 1, started_at = now(), updated_at = now(),
    lease = gen_random_uuid(), worker_id = $1::int, held_until = NULL
  WHERE j.ctid = ANY (ARRAY(SELECT l.ctid FROM locked l))
    AND (EXISTS (SELECT FROM renewed)
      OR NOT $2::bool AND EXISTS (SELECT FROM "public".job_workers w WHERE w.id = $1::int AND w.dead_at IS NULL))
  RETURNING j.id, j.type, j.payload::text AS payload, j.priority, j.attempts, j.max_attempts, j.created_at, j.scheduled_for,
    j.lease, j.crashes, j.metadata::text AS metadata, j.timeout
)
SELECT c.id, c.type, CASE WHEN octet_length(c.payload) <= $3::int THEN c.payload END,
  CASE WHEN octet_length(c.payload) > $3::int THEN octet_length(c.payload) END,
  c.priority, c.attempts, c.max_attempts, c.created_at, c.scheduled_for, c.lease, c.crashes,
  CASE WHEN octet_length(c.metadata) <= 65536 THEN c.metadata END, c.timeout, clock_timestamp()
FROM claimed c

-- name: next
SELECT extract(epoch FROM min(n.scheduled_for) - clock_timestamp())::float8
FROM unnest($1::text[], $2::int[]) AS l(type, priority) CROSS JOIN LATERAL (
  SELECT j.scheduled_for FROM "public".jobs j
  WHERE j.status = 'pending' AND j.type = l.type AND j.priority = l.priority AND j.scheduled_for > now() - $3::float8 * interval '1 s'
  ORDER BY j.scheduled_for LIMIT 1
) n

-- name: walk
WITH RECURSIVE head (type, priority, due, id) AS (
  SELECT l.type, l.below, NULL::timestamptz, NULL::uuid FROM unnest($1::text[], $3::int8[]) AS l(type, below) WHERE NOT EXISTS (SELECT FROM "public".job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL)
  UNION ALL
  SELECT h.type, n.priority, n.scheduled_for, n.id FROM head h CROSS JOIN LATERAL (
    SELECT j.priority::int8, j.scheduled_for, j.id FROM "public".jobs j
    WHERE j.status = 'pending' AND j.type = h.type AND j.priority < h.priority ORDER BY j.priority DESC, j.scheduled_for, j.id LIMIT 1
  ) n
)
SELECT h.type, h.priority::int4, h.due, h.id, extract(epoch FROM h.due - clock_timestamp())::float8 FROM head h
WHERE h.due IS NOT NULL LIMIT $2::int

-- name: walkOthers
WITH RECURSIVE head (type, priority, due, id) AS (
  SELECT $3::text, $4::int4, NULL::timestamptz, NULL::uuid
  UNION ALL
  SELECT n.type, n.priority, n.scheduled_for, n.id FROM head h CROSS JOIN LATERAL (
    (SELECT j.type, j.priority, j.scheduled_for, j.id FROM "public".jobs j
     WHERE j.status = 'pending' AND j.type = h.type AND j.priority < h.priority AND h.type <> ALL ($1::text[])
     ORDER BY j.priority DESC, j.scheduled_for, j.id LIMIT 1)
    UNION ALL
    (SELECT j.type, j.priority, j.scheduled_for, j.id FROM "public".jobs j
     WHERE j.status = 'pending' AND j.type > h.type ORDER BY j.type, j.priority DESC, j.scheduled_for, j.id LIMIT 1)
    LIMIT 1
  ) n
)
SELECT l.type, l.priority, l.due, l.id, extract(epoch FROM l.due - clock_timestamp())::float8 FROM head l
WHERE l.due IS NOT NULL AND l.type <> ALL ($1::text[]) AND NOT EXISTS (SELECT FROM "public".job_types t WHERE t.type = l.type AND t.paused_at IS NOT NULL) LIMIT $2::int

-- name: complete
UPDATE "public".jobs j SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::jsonb -> j.lease::text,
  lease = NULL, worker_id = NULL, held_until = NULL, unavailable_since = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease) WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'

-- name: completeGone
WITH gone AS (
  DELETE FROM "public".jobs j USING unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
  WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing' RETURNING j.id
), forgotten AS (
  DELETE FROM "public".job_errors o USING gone g WHERE o.job_id = g.id
)
SELECT FROM gone

-- name: settle
WITH ended AS MATERIALIZED (
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
    ) s JOIN "public".jobs j ON j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'
    ORDER BY j.id FOR NO KEY UPDATE OF j
  ) w
), noted AS (
  INSERT INTO "public".job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT e.id, e.lease, e.attempts, coalesce(e.error, ''), e.worker_id, e.started_at FROM ended e
  WHERE e.what IN ('retry', 'fail') AND NOT e.gone
), forgotten AS (
  DELETE FROM "public".job_errors o USING ended e
  WHERE o.job_id = e.id AND (e.gone OR e.attempts > 100 AND o.attempt <= e.attempts - 100)
), gone AS (
  DELETE FROM "public".jobs j USING ended e WHERE j.id = e.id AND e.gone RETURNING e.lease, e.what
), kept AS (
  UPDATE "public".jobs j SET
    status = CASE e.what WHEN 'hold' THEN 'processing' WHEN 'cancel' THEN 'cancelled' WHEN 'fail' THEN 'failed'
      ELSE 'pending' END::"public".job_status,
    attempts = CASE WHEN e.what IN ('snooze', 'unavailable', 'back') THEN greatest(j.attempts - 1, 0) ELSE j.attempts END,
    completed_at = CASE WHEN e.what IN ('fail', 'cancel') THEN now() END,
    scheduled_for = CASE WHEN e.what IN ('retry', 'snooze', 'unavailable') THEN now() + e.delay * interval '1 s' ELSE j.scheduled_for END,
    error = coalesce(e.error, j.error), updated_at = now(),
    unavailable_since = CASE e.what WHEN 'unavailable' THEN coalesce(j.unavailable_since, now()) WHEN 'back' THEN j.unavailable_since END,
    lease = CASE e.what WHEN 'hold' THEN j.lease END, worker_id = NULL,
    held_until = CASE e.what WHEN 'hold' THEN now() + e.delay * interval '1 s' END
  FROM ended e WHERE j.id = e.id AND NOT e.gone RETURNING e.lease, e.what
)
SELECT * FROM kept UNION ALL SELECT * FROM gone

-- name: completeTx
UPDATE "public".jobs SET
  status = 'completed', completed_at = now(), updated_at = now(), result = $3::text::jsonb,
  lease = NULL, worker_id = NULL, held_until = NULL
WHERE id = $1::uuid AND lease = $2::uuid AND status = 'processing'

-- name: completeTxGone
WITH gone AS (
  DELETE FROM "public".jobs WHERE id = $1::uuid AND lease = $2::uuid AND status = 'processing' AND ($3::text IS NULL OR true) RETURNING id
), forgotten AS (
  DELETE FROM "public".job_errors o USING gone g WHERE o.job_id = g.id
)
SELECT FROM gone

-- name: unlocked
SELECT j.lease FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
JOIN "public".jobs j ON j.id = s.id AND j.lease = s.lease FOR NO KEY UPDATE OF j SKIP LOCKED

-- name: register
INSERT INTO "public".job_workers (name, version, schema_version, concurrency, types, lease_time, dead_after)
VALUES ($1, $2, $3, $4, $5, $6::float8 * interval '1 s', $7::float8 * interval '1 s') RETURNING id, (SELECT count(*)::int FROM "public".job_workers o
  WHERE o.dead_at IS NULL AND o.id <> job_workers.id AND o.heartbeat_at > now() - interval '5 min')

-- name: unregister
WITH gone AS (
  DELETE FROM "public".job_workers w WHERE w.id = $1
    AND NOT EXISTS (SELECT FROM "public".jobs j WHERE j.worker_id = $1 AND j.status = 'processing')
  RETURNING id
)
UPDATE "public".job_workers SET dead_at = now() WHERE id = $1 AND NOT EXISTS (SELECT FROM gone)

-- name: beat
UPDATE "public".job_workers SET heartbeat_at = clock_timestamp() WHERE id = $1 AND dead_at IS NULL RETURNING (SELECT count(*)::int FROM "public".job_workers o
  WHERE o.dead_at IS NULL AND o.id <> job_workers.id AND o.heartbeat_at > now() - interval '5 min')

-- name: held
SELECT id, lease, cancel_requested_at IS NOT NULL FROM "public".jobs WHERE worker_id = $1 AND status = 'processing'

-- name: release
UPDATE "public".jobs j SET
  status = 'pending', attempts = greatest(j.attempts - 1, 0), updated_at = now(), lease = NULL, worker_id = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS s(id, lease)
WHERE j.id = s.id AND j.lease = s.lease AND j.status::text = 'processing'

-- name: suspects
WITH RECURSIVE holder (id) AS (
  SELECT (SELECT j.worker_id FROM "public".jobs j WHERE j.status = 'processing' ORDER BY j.worker_id LIMIT 1)
  UNION ALL
  SELECT (SELECT j.worker_id FROM "public".jobs j WHERE j.status = 'processing' AND j.worker_id > h.id ORDER BY j.worker_id LIMIT 1)
  FROM holder h WHERE h.id IS NOT NULL
)
SELECT h.id, coalesce(w.heartbeat_at, to_timestamp(0)), w.id IS NULL OR w.dead_at IS NOT NULL,
  coalesce(w.heartbeat_at < clock_timestamp() - w.lease_time, true),
  coalesce(extract(epoch FROM w.dead_after), 0)::float8,
  coalesce(pg_postmaster_start_time() < clock_timestamp() - w.lease_time, false) AND NOT EXISTS (
    SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid = '"public".jobs'::regclass AND l.objid = h.id::bigint::oid)
FROM holder h LEFT JOIN "public".job_workers w ON w.id = h.id
WHERE h.id IS NOT NULL AND h.id <> $1

-- name: markDead
UPDATE "public".job_workers SET dead_at = clock_timestamp()
WHERE id = $1 AND dead_at IS NULL AND heartbeat_at = $2 RETURNING true

-- name: reapWorker
WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, 1 AS crash,
    format('worker %s died or lost touch with the database while it ran this job', j.worker_id) AS cause
  FROM "public".jobs j WHERE j.worker_id = $1 AND j.status = 'processing' ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
  INSERT INTO "public".job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT l.id, l.lease, l.attempts, l.cause, l.worker_id, l.started_at FROM lost l WHERE l.lease IS NOT NULL
)
UPDATE "public".jobs j SET
  status = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN j.attempts >= j.max_attempts THEN 'failed'
    ELSE 'pending' END::"public".job_status,
  completed_at = CASE WHEN j.cancel_requested_at IS NOT NULL OR j.attempts >= j.max_attempts THEN now() END,
  scheduled_for = CASE WHEN j.crashes + l.crash < 2 THEN j.scheduled_for
    ELSE now() + least(interval '30 s' * 4 ^ least(j.crashes + l.crash - 2, 20), interval '1 day') END,
  error = l.cause || CASE WHEN j.attempts >= j.max_attempts THEN '; that was its last attempt' ELSE '' END,
  crashes = j.crashes + l.crash, updated_at = now(), lease = NULL, worker_id = NULL, held_until = NULL
FROM lost l WHERE j.id = l.id RETURNING j.status = 'pending'

-- name: reapHeld
WITH lost AS MATERIALIZED (
  SELECT j.id, j.lease, j.attempts, j.worker_id, j.started_at, 0 AS crash,
    'not settled within the time that its holder had'::text AS cause
  FROM "public".jobs j
  WHERE j.worker_id IS NULL AND j.status = 'processing' AND (j.held_until < now() OR j.held_until IS NULL AND j.updated_at < now()
    - (SELECT s.value::interval FROM "public".job_settings s WHERE s.name = 'manual_lease'))
  ORDER BY j.id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
  INSERT INTO "public".job_errors (job_id, lease, attempt, error, worker_id, started_at)
  SELECT l.id, l.lease, l.attempts, l.cause, l.worker_id, l.started_at FROM lost l WHERE l.lease IS NOT NULL
)
UPDATE "public".jobs j SET
  status = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN j.attempts >= j.max_attempts THEN 'failed'
    ELSE 'pending' END::"public".job_status,
  completed_at = CASE WHEN j.cancel_requested_at IS NOT NULL OR j.attempts >= j.max_attempts THEN now() END,
  scheduled_for = CASE WHEN j.crashes + l.crash < 2 THEN j.scheduled_for
    ELSE now() + least(interval '30 s' * 4 ^ least(j.crashes + l.crash - 2, 20), interval '1 day') END,
  error = l.cause || CASE WHEN j.attempts >= j.max_attempts THEN '; that was its last attempt' ELSE '' END,
  crashes = j.crashes + l.crash, updated_at = now(), lease = NULL, worker_id = NULL, held_until = NULL
FROM lost l WHERE j.id = l.id RETURNING j.status = 'pending'

-- name: saveManualLease
INSERT INTO "public".job_settings AS s (name, value) VALUES ('manual_lease', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value

-- name: pauseType
SELECT "public".pause_type($1, $2)

-- name: ring
SELECT "public".ring_jobs()

-- name: prospect
WITH RECURSIVE present (type) AS (
  SELECT (SELECT j.type FROM "public".jobs j WHERE j.status = 'pending' ORDER BY j.type LIMIT 1)
  UNION ALL
  SELECT (SELECT j.type FROM "public".jobs j WHERE j.status = 'pending' AND j.type > p.type ORDER BY j.type LIMIT 1)
  FROM present p WHERE p.type IS NOT NULL
), handled AS MATERIALIZED (
  SELECT DISTINCT unnest(w.types) AS type FROM "public".job_workers w
  WHERE w.dead_at IS NULL AND w.heartbeat_at > now() - interval '3 min'
), first AS MATERIALIZED (
  SELECT p.type, n.due, EXISTS (SELECT FROM handled h WHERE h.type IN (p.type, '*')) AS handled,
    EXISTS (SELECT FROM "public".job_types t WHERE t.type = p.type AND t.paused_at IS NOT NULL) AS paused
  FROM (SELECT p.type FROM present p WHERE p.type IS NOT NULL LIMIT $1::int) p CROSS JOIN LATERAL (
    WITH RECURSIVE level (priority) AS (
      SELECT (SELECT j.priority FROM "public".jobs j WHERE j.status = 'pending' AND j.type = p.type ORDER BY j.priority DESC LIMIT 1)
      UNION ALL
      SELECT (SELECT j.priority FROM "public".jobs j WHERE j.status = 'pending' AND j.type = p.type AND j.priority < l.priority ORDER BY j.priority DESC LIMIT 1)
      FROM level l WHERE l.priority IS NOT NULL
    )
    SELECT min(j.scheduled_for) AS due FROM (SELECT l.priority FROM level l WHERE l.priority IS NOT NULL LIMIT 100) l
    CROSS JOIN LATERAL (
      SELECT j.scheduled_for FROM "public".jobs j
      WHERE j.status = 'pending' AND j.type = p.type AND j.priority = l.priority
      ORDER BY j.scheduled_for, j.id LIMIT 1
    ) j
  ) n
)
SELECT extract(epoch FROM min(f.due) FILTER (WHERE f.handled AND NOT f.paused) - clock_timestamp())::float8,
  (SELECT extract(epoch FROM j.held_until - clock_timestamp())::float8 FROM "public".jobs j
   WHERE j.status = 'processing' AND j.worker_id IS NULL AND isfinite(j.held_until) ORDER BY j.worker_id, j.held_until LIMIT 1),
  count(*) >= $1::int,
  coalesce(array_agg(f.type ORDER BY f.type) FILTER (WHERE NOT f.handled AND f.due < now() - interval '1 min'), '{}')
FROM first f

-- name: table
SELECT pg_relation_size('"public".jobs'::regclass) / current_setting('block_size')::int, pg_relation_filenode('"public".jobs'::regclass)::int8,
  coalesce($1 = (SELECT min(w.id) FROM "public".job_workers w WHERE w.dead_at IS NULL AND w.heartbeat_at > now() - interval '3 min'), false),
  pg_stat_get_dead_tuples('"public".jobs'::regclass), pg_stat_get_live_tuples('"public".jobs'::regclass)

-- name: glean
SELECT count(*) FILTER (WHERE a.ripe <= now()),
  extract(epoch FROM min(a.ripe) FILTER (WHERE a.ripe > now() AND isfinite(a.ripe)) - now())::float8
FROM (SELECT greatest(j.completed_at, j.updated_at) + CASE j.status
  WHEN 'completed' THEN $3::float8 * interval '1 s' WHEN 'failed' THEN $4::float8 * interval '1 s'
  WHEN 'cancelled' THEN $5::float8 * interval '1 s' END AS ripe FROM "public".jobs j WHERE j.ctid >= format('(%s,0)', $1::int8)::tid AND j.ctid < format('(%s,0)', $2::int8)::tid) a

-- name: prune
WITH old AS MATERIALIZED (
  SELECT j.ctid FROM "public".jobs j WHERE j.ctid >= format('(%s,0)', $1::int8)::tid AND j.ctid < format('(%s,0)', $2::int8)::tid AND greatest(j.completed_at, j.updated_at) + CASE j.status
  WHEN 'completed' THEN $3::float8 * interval '1 s' WHEN 'failed' THEN $4::float8 * interval '1 s'
  WHEN 'cancelled' THEN $5::float8 * interval '1 s' END <= now() LIMIT $6::int FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM "public".jobs j WHERE j.ctid = ANY (ARRAY(SELECT o.ctid FROM old o)) RETURNING j.id
), forgotten AS (
  DELETE FROM "public".job_errors e WHERE e.job_id = ANY (ARRAY(SELECT g.id FROM gone g))
)
SELECT count(*) FROM gone

-- name: pruneWorkers
DELETE FROM "public".job_workers w
WHERE coalesce(w.dead_at, w.heartbeat_at) < now() - interval '1 day'
  AND NOT EXISTS (SELECT FROM "public".jobs j WHERE j.worker_id = w.id AND j.status = 'processing')

-- name: horizon
SELECT * FROM (
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
) h ORDER BY h.behind DESC NULLS LAST, h.since DESC NULLS LAST LIMIT 20
