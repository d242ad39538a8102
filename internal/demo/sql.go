package demo

import (
	"strings"

	"github.com/jackc/pgx/v5"
)

// statements are the SQL of this package for one schema. The inserts are what an application would send: plain SQL, no
// function of pgbell's.
type statements struct {
	insert, insertOptions, insertBulk string
	statuses, rows, ghosts, total     string
	application                       string
}

func newStatements(schema string) statements {
	in := func(sql string) string {
		return strings.ReplaceAll(sql, "{schema}", pgx.Identifier{schema}.Sanitize())
	}
	return statements{
		insert: in(insertSQL), insertOptions: in(insertOptionsSQL), insertBulk: in(insertBulkSQL),
		statuses: in(statusesSQL), rows: in(rowsSQL), ghosts: in(ghostsSQL), total: in(totalSQL),
		application: in(applicationSQL),
	}
}

const createSchemaSQL = `CREATE SCHEMA `

const dropSchemaSQL = `DROP SCHEMA IF EXISTS {schema} CASCADE`

const versionSQL = `SELECT current_setting('server_version')`

// A complete enqueue.
const insertSQL = `INSERT INTO {schema}.jobs (type, payload) VALUES ($1, $2) RETURNING id::text`

// A duplicate, by type and unique_key of a job that isn't finished, returns no row.
const insertOptionsSQL = `INSERT INTO {schema}.jobs (type, payload, priority, scheduled_for, max_attempts, unique_key)
VALUES ($1, $2, $3, now() + $4::interval, $5, $6) ON CONFLICT DO NOTHING RETURNING id::text`

// A stretch of jobs in one statement: one ring for all.
const insertBulkSQL = `INSERT INTO {schema}.jobs (type, payload)
SELECT $1, jsonb_build_object('demo', n) FROM generate_series($2::bigint, $3::bigint) AS n
RETURNING id::text, (payload->>'demo')::bigint`

// Takes no locks. Index: the primary key.
const statusesSQL = `SELECT id::text, status::text, attempts FROM {schema}.jobs WHERE id = ANY ($1::text[]::uuid[])`

// All that is compared at the end. Takes no locks. Indexes: the primary keys, and demo_payments_job.
const rowsSQL = `SELECT j.id::text, j.status::text, j.attempts, j.completed_at IS NOT NULL, coalesce(j.error, ''),
  CASE WHEN jsonb_typeof(j.result->'demo') = 'number' THEN (j.result->>'demo')::bigint ELSE 0 END,
  (SELECT count(*) FROM {schema}.job_errors e WHERE e.job_id = j.id),
  (SELECT count(*) FROM {schema}.demo_payments p WHERE p.job_id = j.id)
FROM {schema}.jobs j WHERE j.id = ANY ($1::text[]::uuid[])`

// Rows that must not exist: those that were rolled back.
const ghostsSQL = `SELECT id::text FROM {schema}.jobs WHERE id = ANY ($1::text[]::uuid[])`

// The stream's rows, which no other row looks like. Reads the whole table: once, at the end.
const totalSQL = `SELECT count(*) FROM {schema}.jobs WHERE type = ANY ($1) AND payload ? 'demo'`

// The application's own table, and its SQL function. Nothing in them stops an effect from happening twice: that it
// doesn't is what the demo checks.
const applicationSQL = `
CREATE TABLE {schema}.demo_payments (
  job_id    uuid NOT NULL,
  booked_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX demo_payments_job ON {schema}.demo_payments (job_id);

CREATE FUNCTION {schema}.demo_book_payment(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $function$
DECLARE
  attempt int := current_setting('pgbell.attempt');
BEGIN
  INSERT INTO {schema}.demo_payments (job_id) VALUES (current_setting('pgbell.job_id')::uuid);
  -- After the INSERT on purpose: a failed attempt takes its effects back.
  IF payload->'permanent' = 'true' THEN
    RAISE EXCEPTION 'there is no such account' USING ERRCODE = 'PB001';
  ELSIF attempt <= (payload->>'fails')::int THEN
    RAISE EXCEPTION 'the books are closed for a moment, attempt %', attempt;
  END IF;
  RETURN jsonb_build_object('demo', payload->'demo', 'booked', true);
END
$function$;
`
