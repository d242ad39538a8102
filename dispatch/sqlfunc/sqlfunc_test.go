package sqlfunc_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgbell/pgbell/dispatch"
	"github.com/pgbell/pgbell/dispatch/sqlfunc"
	"github.com/pgbell/pgbell/internal/conformance"
	"github.com/pgbell/pgbell/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var behaviours = map[conformance.Behaviour]string{
	conformance.Echo: `RETURNS jsonb LANGUAGE sql RETURN payload`,
	conformance.Describe: `RETURNS jsonb LANGUAGE sql RETURN jsonb_build_object('id', current_setting('pgbell.job_id'), 'type', current_setting('pgbell.job_type'),
		'attempt', current_setting('pgbell.attempt')::int, 'max_attempts', current_setting('pgbell.max_attempts')::int, 'lease', current_setting('pgbell.lease'))`,
	conformance.Flaky: `RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('pgbell.attempt')::int < 3 THEN RAISE EXCEPTION 'flaky attempt %', current_setting('pgbell.attempt'); END IF; END $$`,
	conformance.Hopeless:  `RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hopeless'; END $$`,
	conformance.Permanent: `RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'permanent' USING ERRCODE = 'PB001'; END $$`,
	conformance.Slow:      `RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(3600) $$`,
	conformance.Loud:      `RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', repeat('loud ', 30000); END $$`,
	conformance.Silent:    `RETURNS void LANGUAGE sql AS $$ SELECT $$`,
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Run(t, func(t *testing.T, url string, behaviour conformance.Behaviour) dispatch.Handler {
		return define(t, pgtest.Pool(t, url), "Do "+string(behaviour), behaviours[behaviour])
	})
}

// define creates a function and returns the handler that calls it.
func define(t *testing.T, pool *pgxpool.Pool, name, body string) dispatch.Handler {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `CREATE FUNCTION public."`+name+`"(payload jsonb) `+body); err != nil {
		t.Fatalf("create function: %v", err)
	}
	handler, err := sqlfunc.New(pool, sqlfunc.Config{Function: "public." + name})
	if err != nil {
		t.Fatalf("new handler: %v", err)
	}
	return handler
}

func dispatchType(t *testing.T, url string, handler dispatch.Handler) {
	t.Helper()
	dispatchTypes(t, url, map[string]dispatch.Type{"f": {Handler: handler, Backoff: dispatch.Backoff{Base: 10 * time.Millisecond}}})
}

func dispatchTypes(t *testing.T, url string, types map[string]dispatch.Type) {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), pgtest.PoolURL(url))
	if err != nil {
		t.Fatal(err)
	}
	d, err := dispatch.New(pool, dispatch.Config{PollDeaf: 10 * time.Millisecond, Types: types})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run dispatcher: %v", err)
		}
		pool.Close()
	})
}

func waitFor(t *testing.T, pool *pgxpool.Pool, condition string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		var holds bool
		if err := pool.QueryRow(t.Context(), `SELECT `+condition).Scan(&holds); err != nil {
			t.Fatalf("%s: %v", condition, err)
		}
		if holds {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within 20 s: %s", condition)
		case <-tick.C:
		}
	}
}

// An effect is there once and only with the completion: a failed attempt leaves nothing, nor does one whose lease was
// taken away while the function ran.
func TestEffectAndCompletionAreOneTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE effects (job uuid, attempt int)`); err != nil {
		t.Fatal(err)
	}
	dispatchType(t, url, define(t, pool, "f", `RETURNS int LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO effects VALUES (current_setting('pgbell.job_id')::uuid, current_setting('pgbell.attempt')::int);
		IF payload = '"stolen"' AND current_setting('pgbell.attempt') = '1' THEN
			UPDATE jobs SET lease = gen_random_uuid(), worker_id = NULL, held_until = now() + interval '300 ms'
			WHERE id = current_setting('pgbell.job_id')::uuid;
			RETURN 1;
		END IF;
		IF current_setting('pgbell.attempt')::int < 3 THEN RAISE EXCEPTION 'not yet'; END IF;
		RETURN 7;
	END $$`))
	if _, err := pool.Exec(t.Context(), `INSERT INTO jobs (type, payload) SELECT 'f', to_jsonb(n) FROM generate_series(1, 20) n`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, pool, `(SELECT count(*) = 20 FROM jobs WHERE status = 'completed' AND attempts = 3 AND result = '7')`)
	waitFor(t, pool, `(SELECT count(*) = 20 AND count(DISTINCT job) = 20 AND min(attempt) = 3 FROM effects)`)
}

// A lease that another took away meanwhile: the function's effects are rolled back.
func TestStaleLeaseRollsBack(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE effects (job uuid); CREATE TABLE gate (open bool); INSERT INTO gate VALUES (false)`); err != nil {
		t.Fatal(err)
	}
	dispatchType(t, url, define(t, pool, "f", `RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO effects VALUES (current_setting('pgbell.job_id')::uuid);
		WHILE NOT (SELECT open FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
	END $$`))
	if _, err := pool.Exec(t.Context(), `INSERT INTO jobs (type) VALUES ('f')`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, pool, `EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())`)
	if _, err := pool.Exec(t.Context(), `UPDATE jobs SET lease = gen_random_uuid(), worker_id = NULL, held_until = now() + interval '1 h'; UPDATE gate SET open = true`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, pool, `NOT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' OR wait_event = 'PgSleep' AND datname = current_database())`)
	waitFor(t, pool, `(SELECT count(*) = 0 FROM effects)`)
	waitFor(t, pool, `(SELECT status = 'processing' AND result IS NULL FROM jobs)`)
}

// What a function returns is the job's result, whatever its type.
func TestReturnTypes(t *testing.T) {
	t.Parallel()
	url := pgtest.Migrated(t)
	pool := pgtest.Pool(t, url)
	cases := map[string]struct{ body, want string }{
		"boolean": {`boolean LANGUAGE sql AS $$ SELECT true $$`, `true`},
		"numeric": {`numeric LANGUAGE sql AS $$ SELECT 12345678901234567890.5 $$`, `12345678901234567890.5`},
		"nan":     {`float8 LANGUAGE sql AS $$ SELECT 'NaN'::float8 $$`, `"NaN"`},
		"text":    {`text LANGUAGE sql AS $$ SELECT E'a"b\n' $$`, `"a\"b\n"`},
		"json":    {`json LANGUAGE sql AS $$ SELECT '[1]'::json $$`, `[1]`},
		"set":     {`SETOF int LANGUAGE sql AS $$ VALUES (3), (4) $$`, `3`},
		"empty":   {`SETOF int LANGUAGE sql AS $$ SELECT 1 WHERE false $$`, `null`},
		"null":    {`jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$`, `null`},
		"date":    {`timestamptz LANGUAGE sql AS $$ SELECT 'infinity'::timestamptz $$`, `"infinity"`},
	}
	configured := map[string]dispatch.Type{}
	for name, c := range cases {
		configured[name] = dispatch.Type{Handler: define(t, pool, name, "RETURNS "+c.body)}
	}
	dispatchTypes(t, url, configured)
	for name := range cases {
		if _, err := pool.Exec(t.Context(), `INSERT INTO jobs (type) VALUES ($1)`, name); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, pool, `(SELECT bool_and(status = 'completed') FROM jobs)`)
	for name, c := range cases {
		var got string
		if err := pool.QueryRow(t.Context(), `SELECT coalesce(result::text, 'null') FROM jobs WHERE type = $1`, name).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s: result is %s, want %s (error %v)", name, got, c.want, err)
		}
	}
}

func TestMissingFunctionIsNotTheJobsFault(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	handler, err := sqlfunc.New(pool, sqlfunc.Config{Function: "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	got := handler.Run(t.Context(), dispatch.Job{Payload: []byte(`{}`), Deadline: time.Now().Add(time.Minute)})
	if got.Outcome != dispatch.OutcomeUnavailable || !strings.Contains(got.Err.Error(), "nowhere") {
		t.Errorf("got %+v", got)
	}
}

func TestSnooze(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Migrated(t))
	handler := define(t, pool, "f", `RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'early' USING ERRCODE = 'PB002', DETAIL = '90.5'; END $$`)
	got := handler.Run(t.Context(), dispatch.Job{Payload: []byte(`{}`), Deadline: time.Now().Add(time.Minute)})
	if got.Outcome != dispatch.OutcomeSnooze || got.Delay != 90500*time.Millisecond {
		t.Errorf("got %+v", got)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t, pgtest.Empty(t))
	for _, name := range []string{"", ".", "a.", "a.b.c", `a"b`, "f()", "f\x00", strings.Repeat("x", 64)} {
		if _, err := sqlfunc.New(pool, sqlfunc.Config{Function: name}); err == nil {
			t.Errorf("function %q was accepted", name)
		}
	}
}
