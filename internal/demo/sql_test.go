package demo

import (
	"context"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// Every statement can be prepared against the schema, whatever its name.
func TestStatements(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url, leftovers := pgtest.Empty(t), &leftovers{}
	t.Cleanup(func() {
		if err := leftovers.remove(); err != nil {
			t.Error(err)
		}
	})
	database, err := openDatabase(ctx, Config{DatabaseURL: url, Schema: "Demo it's"}, leftovers)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, database.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	statements := reflect.ValueOf(newStatements(database.schema))
	for i := range statements.NumField() {
		name := statements.Type().Field(i).Name
		if name == "application" {
			continue // openDatabase has run it
		}
		if _, err := conn.Prepare(ctx, name, statements.Field(i).String()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
