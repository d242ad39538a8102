-- The status of a job, alone in its transaction: a value added to an enum can't be used before it is committed. Before
-- that, all that is in the way of pgbell is listed, so that an installation that can't succeed changes nothing.
-- serves: 1
-- Locks: a short one on the type's row in the catalog. Where a jobs table exists it is read whole, under ACCESS SHARE.

DO $migration$
DECLARE
  home constant oid := (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {name});
  me constant oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
  kind pg_catalog.pg_type;
  jobs pg_catalog.pg_class;
  clashes text[] := '{}';
  doubts text[] := '{}';     -- conditions of rows that would be in the way, and what to say of them
  sayings text[] := '{}';
  counts bigint[];
  wanted record;
  seen record;
BEGIN
  SELECT * INTO kind FROM pg_catalog.pg_type WHERE typnamespace = home AND typname = 'job_status';
  SELECT * INTO jobs FROM pg_catalog.pg_class WHERE relnamespace = home AND relname = 'jobs';

  IF kind.oid IS NOT NULL AND kind.typtype <> 'e' THEN
    clashes := clashes || 'type job_status exists and is not an enum'::text;
  ELSIF kind.oid IS NOT NULL THEN
    FOR wanted IN SELECT value FROM unnest(ARRAY['pending', 'processing', 'completed', 'failed']) AS value
      WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_enum WHERE enumtypid = kind.oid AND enumlabel = value)
    LOOP
      clashes := clashes || format('type job_status lacks the value %L', wanted.value);
    END LOOP;
    IF kind.typowner <> me THEN
      clashes := clashes || format('type job_status belongs to %s: migrate as that role, not as %I', kind.typowner::regrole::text, current_user);
    END IF;
  END IF;

  FOR seen IN SELECT relname, relkind FROM pg_catalog.pg_class WHERE relnamespace = home
    AND relname IN ('job_errors', 'job_workers', 'job_types', 'job_settings', 'jobs_claim', 'jobs_held', 'jobs_unique') ORDER BY relname
  LOOP
    clashes := clashes || format('%s %s exists, and is not pgbell''s', CASE seen.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view'
      WHEN 'i' THEN 'index' ELSE 'relation' END, seen.relname);
  END LOOP;
  FOR seen IN SELECT p.oid, p.proname, p.prosecdef, p.proowner,
      p.prokind = 'f' AND p.proretset AND p.prorettype = jobs.reltype AND p.proargtypes = '23'::oidvector
        AND p.proallargtypes IS NULL AND (p.proargnames IS NULL OR p.proargnames = ARRAY['batch_size'])
        AND p.pronargdefaults <= 1 AS fits
    FROM pg_catalog.pg_proc p WHERE p.pronamespace = home AND p.proname IN ('jobs_ring', 'job_types_ring', 'ring_jobs', 'jobs_cancel_requested', 'enqueue_job',
      'claim_jobs', 'jobs_refuse_stale', 'complete_job', 'fail_job', 'heartbeat_job', 'cancel_job', 'retry_job', 'pause_type', 'resume_type',
      'jobs_manual_lease', 'jobs_roles', 'jobs_access') ORDER BY p.proname, p.oid
  LOOP
    IF seen.proname <> 'claim_jobs' THEN
      clashes := clashes || format('function %s exists, and is not pgbell''s', seen.oid::regprocedure);
    ELSIF seen.fits IS NOT TRUE THEN
      clashes := clashes || format('function %s is not claim_jobs(batch_size integer DEFAULT 5) RETURNS SETOF jobs', seen.oid::regprocedure);
    ELSIF seen.prosecdef THEN
      clashes := clashes || 'function claim_jobs is SECURITY DEFINER, and pgbell''s is not: grant UPDATE on jobs to who calls it, and make it SECURITY INVOKER'::text;
    ELSIF seen.proowner <> me THEN
      clashes := clashes || format('function claim_jobs belongs to %s: migrate as that role, not as %I', seen.proowner::regrole::text, current_user);
    END IF;
  END LOOP;

  IF jobs.relkind <> 'r' THEN
    clashes := clashes || 'jobs exists and is not an ordinary table'::text;
  ELSIF jobs.oid IS NOT NULL THEN
    IF jobs.relowner <> me THEN
      clashes := clashes || format('table jobs belongs to %s: migrate as that role, not as %I', jobs.relowner::regrole::text, current_user);
    END IF;
    IF jobs.relpersistence <> 'p' THEN
      clashes := clashes || 'table jobs is unlogged: a crash would empty it (ALTER TABLE jobs SET LOGGED)'::text;
    END IF;
    -- Triggers of statements fire for the table that a statement names; claims find rows by ctid, which each table has of its own.
    IF EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE jobs.oid IN (inhparent, inhrelid)) THEN
      clashes := clashes || 'table jobs is a partition, or inherits from or to another table: inserts into that one would not ring, and claims mix up their rows'::text;
    END IF;
    IF jobs.relforcerowsecurity THEN
      clashes := clashes || 'table jobs has FORCE ROW LEVEL SECURITY, which hides its rows from enqueue_job (ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY)'::text;
    END IF;
    -- Row security without a policy for them would shut these roles out.
    IF NOT jobs.relrowsecurity THEN
      FOR seen IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM aclexplode(jobs.relacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
        WHERE a.grantee <> jobs.relowner AND NOT coalesce(r.rolsuper OR r.rolbypassrls, false)
        ORDER BY 1
      LOOP
        clashes := clashes || format('row security of table jobs is off and %s has rights on it, which pgbell would cut off: '
          'ALTER TABLE jobs ENABLE ROW LEVEL SECURITY and CREATE POLICY for it, or REVOKE them', seen.grantee);
      END LOOP;
    END IF;

    FOR wanted IN SELECT * FROM (VALUES
      ('id', 'uuid', true), ('type', 'text', true), ('payload', 'jsonb', true), ('status', 'job_status', true),
      ('priority', 'integer', true), ('attempts', 'integer', true), ('max_attempts', 'integer', true),
      ('error', 'text', false), ('created_at', 'timestamp with time zone', true), ('updated_at', 'timestamp with time zone', true),
      ('scheduled_for', 'timestamp with time zone', true), ('completed_at', 'timestamp with time zone', false),
      ('started_at', 'timestamp with time zone', false), ('lease', 'uuid', false), ('worker_id', 'integer', false),
      ('held_until', 'timestamp with time zone', false), ('crashes', 'integer', true), ('unique_key', 'text', false),
      ('result', 'jsonb', false), ('timeout', 'interval', false), ('metadata', 'jsonb', false),
      ('cancel_requested_at', 'timestamp with time zone', false), ('unavailable_since', 'timestamp with time zone', false)
    ) AS w(name, type, required)
    LOOP
      SELECT a.attnum, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull, a.attgenerated, a.attidentity,
        CASE wanted.type WHEN 'job_status' THEN a.atttypid = kind.oid ELSE a.atttypid = to_regtype(wanted.type) END AS fits
      INTO seen FROM pg_catalog.pg_attribute a WHERE a.attrelid = jobs.oid AND a.attname = wanted.name AND NOT a.attisdropped;
      IF NOT FOUND THEN
        IF wanted.name IN ('id', 'type', 'payload', 'status') THEN
          clashes := clashes || format('column %s is missing', wanted.name);
        END IF;
        CONTINUE;
      END IF;
      IF seen.fits IS NOT TRUE THEN
        clashes := clashes || format('column %s is %s, not %s', wanted.name, seen.type, wanted.type);
      ELSIF seen.attgenerated <> '' OR seen.attidentity <> '' THEN
        clashes := clashes || format('column %s is generated', wanted.name);
      ELSE
        IF wanted.required AND NOT seen.attnotnull THEN
          doubts := doubts || format('%I IS NULL', wanted.name);
          sayings := sayings || format('column %s is NULL in %%s row(s): UPDATE jobs SET %1$s = ... WHERE %1$s IS NULL', wanted.name);
        END IF;
        doubts := doubts || CASE wanted.name
          WHEN 'type' THEN ARRAY['char_length(type) NOT BETWEEN 1 AND 200'] WHEN 'attempts' THEN ARRAY['attempts < 0']
          WHEN 'max_attempts' THEN ARRAY['max_attempts < 1'] WHEN 'scheduled_for' THEN ARRAY['NOT isfinite(scheduled_for)']
          WHEN 'timeout' THEN ARRAY['timeout <= interval ''0'''] WHEN 'crashes' THEN ARRAY['crashes < 0']
          WHEN 'unique_key' THEN ARRAY['octet_length(unique_key) NOT BETWEEN 1 AND 1000'] ELSE '{}' END;
        sayings := sayings || CASE wanted.name
          WHEN 'type' THEN ARRAY['%s row(s) break jobs_type_has_1_to_200_characters'] WHEN 'attempts' THEN ARRAY['%s row(s) break jobs_attempts_is_not_negative']
          WHEN 'max_attempts' THEN ARRAY['%s row(s) break jobs_max_attempts_is_at_least_1'] WHEN 'scheduled_for' THEN ARRAY['%s row(s) break jobs_scheduled_for_is_finite']
          WHEN 'timeout' THEN ARRAY['%s row(s) break jobs_timeout_is_positive'] WHEN 'crashes' THEN ARRAY['%s row(s) break jobs_crashes_is_not_negative']
          WHEN 'unique_key' THEN ARRAY['%s row(s) break jobs_unique_key_has_1_to_1000_bytes'] ELSE '{}' END;
      END IF;
    END LOOP;
    IF doubts <> '{}' THEN
      EXECUTE format('SELECT ARRAY[%s] FROM %I.jobs',
        (SELECT string_agg(format('count(*) FILTER (WHERE %s)', doubt), ', ' ORDER BY n) FROM unnest(doubts) WITH ORDINALITY AS d(doubt, n)),
        {name}) INTO counts;
      clashes := clashes || ARRAY(SELECT format(saying, counts[n]) FROM unnest(sayings) WITH ORDINALITY AS s(saying, n) WHERE counts[n] > 0 ORDER BY n);
    END IF;

    FOR seen IN
      SELECT a.attname FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE a.attrelid = jobs.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND d.oid IS NULL AND a.attidentity = ''
        AND a.attname NOT IN ('id', 'type', 'payload', 'status', 'priority', 'attempts', 'max_attempts', 'created_at', 'updated_at',
                              'scheduled_for', 'crashes') ORDER BY a.attnum
    LOOP
      clashes := clashes || format('column %s is NOT NULL without a default: pgbell''s inserts, which don''t know it, would fail', seen.attname);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = jobs.oid AND i.indisprimary AND i.indnkeyatts = 1 AND a.attname = 'id') THEN
      clashes := clashes || 'column id is not the primary key'::text;
    END IF;
    clashes := clashes || ARRAY(SELECT format('constraint %s exists on table jobs, and is not pgbell''s', conname) FROM pg_catalog.pg_constraint
      WHERE conrelid = jobs.oid AND conname IN ('jobs_type_has_1_to_200_characters', 'jobs_attempts_is_not_negative',
        'jobs_max_attempts_is_at_least_1', 'jobs_scheduled_for_is_finite', 'jobs_timeout_is_positive', 'jobs_crashes_is_not_negative',
        'jobs_unique_key_has_1_to_1000_bytes') ORDER BY conname);
    clashes := clashes || ARRAY(SELECT format('trigger %s exists on table jobs, and is not pgbell''s', tgname) FROM pg_catalog.pg_trigger
      WHERE tgrelid = jobs.oid AND tgname IN ('jobs_ring_insert', 'jobs_ring_update', 'jobs_cancel_requested') ORDER BY tgname);
    clashes := clashes || ARRAY(SELECT format('policy %s exists on table jobs, and is not pgbell''s', polname) FROM pg_catalog.pg_policy
      WHERE polrelid = jobs.oid AND polname IN ('pgbell_producer', 'pgbell_worker') ORDER BY polname);
    -- Two unfinished jobs with one key, in a table that has the column already.
    IF (SELECT count(*) = 4 FROM pg_catalog.pg_attribute a WHERE a.attrelid = jobs.oid AND NOT a.attisdropped
        AND (a.attname, format_type(a.atttypid, NULL)) IN (('unique_key', 'text'), ('type', 'text'), ('id', 'uuid'))
          OR (a.attrelid = jobs.oid AND a.attname = 'status' AND a.atttypid = kind.oid)) THEN
      EXECUTE format('SELECT count(*) AS keys FROM (SELECT FROM %I.jobs WHERE unique_key IS NOT NULL AND status::text IN (''pending'', ''processing'') '
        'GROUP BY type, unique_key HAVING count(*) > 1) d', {name}) INTO seen;
      IF seen.keys > 0 THEN
        clashes := clashes || format('%s unique_key(s) have more than one pending or processing job', seen.keys);
      END IF;
    END IF;
  END IF;

  IF clashes <> '{}' THEN
    RAISE EXCEPTION 'pgbell can''t be installed in schema %: % thing(s) there are in the way', {name}, cardinality(clashes)
      USING ERRCODE = 'PB001', DETAIL = array_to_string(clashes, E'\n'),
        HINT = 'Mend what is listed, or install pgbell in a schema of its own (--schema). Nothing was changed.';
  END IF;
  IF kind.oid IS NULL THEN
    CREATE TYPE {schema}.job_status AS ENUM ('pending', 'processing', 'completed', 'failed', 'cancelled');
  ELSE
    UPDATE {schema}.pgbell_migrations SET adopted = jsonb_build_object('job_status', true, 'jobs', jobs.oid IS NOT NULL) WHERE version = 1;
  END IF;
END
$migration$;

-- An enum made by the recipe that pgbell adopts ends at 'failed'.
ALTER TYPE {schema}.job_status ADD VALUE IF NOT EXISTS 'cancelled';
