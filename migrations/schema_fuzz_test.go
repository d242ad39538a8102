package migrations_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// FuzzSchema: a name that CheckSchema lets through names one schema and one channel wherever the templates put it; nothing of it
// is read as SQL, or as a template. Migrating wholly takes too long to do it thousands of times: a small template with what the
// real ones have (an identifier, a literal, both in a function's body, and names that look like placeholders) stands for them.
func FuzzSchema(f *testing.F) {
	for _, seed := range []string{"public", "a b", `a"b`, "a$b", "a'b", `a\b`, "a;b", "--", "/*", "{schema}", "{name}", "{channel}", "$function$", "é", "\u202e", "a\x00", "\xff", "Pg_x", "pg_x",
		strings.Repeat("é", 28), strings.Repeat("x", 57), "'; DROP TABLE x; --", "%s", "E'", "U&'", "information_schema", " "} {
		f.Add(seed)
	}
	conn := connect(f, pgtest.Empty(f))
	f.Fuzz(func(t *testing.T, schema string) {
		if migrations.CheckSchema(schema) != nil {
			t.Skip()
		}
		filled := migrations.Fill(schema, `CREATE SCHEMA {schema};
			CREATE TABLE {schema}.jobs (id int);
			CREATE FUNCTION {schema}.told() RETURNS text[] LANGUAGE sql AS $function$
				SELECT ARRAY[{name}, {channel}, (SELECT count(*)::text FROM {schema}.jobs)];
			$function$;`) + fmt.Sprintf(`LISTEN "%s"`, migrations.Channel(schema))
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		if schema == "public" {
			filled = strings.Replace(filled, `CREATE SCHEMA "public";`, "", 1)
		}
		if _, err := tx.Exec(t.Context(), filled); err != nil {
			t.Fatalf("%q: %v", schema, err)
		}
		var told []string
		if err := tx.QueryRow(t.Context(), fmt.Sprintf(`SELECT "%s".told()`, schema)).Scan(&told); err != nil {
			t.Fatalf("%q: %v", schema, err)
		}
		if told[0] != schema || told[1] != migrations.Channel(schema) || told[2] != "0" {
			t.Fatalf("%q says %q", schema, told)
		}
		var schemas int
		if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname = $1`, schema).Scan(&schemas); err != nil || schemas != 1 {
			t.Fatalf("%q is %d schemas (%v)", schema, schemas, err)
		}
	})
}
