// Package migrations brings pgbell's tables and functions into a database.
package migrations

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed *.sql
var files embed.FS

// Config of an installation.
type Config struct {
	// Schema to install in. Defaults to "public".
	Schema string
}

// Up brings the installation to the newest version.
func Up(ctx context.Context, conn *pgx.Conn, config Config) error {
	schema := config.Schema
	if schema == "" {
		schema = "public"
	}
	names, err := fs.Glob(files, "*.up.sql")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		sql := strings.NewReplacer("{schema}", pgx.Identifier{schema}.Sanitize(), "{channel}", "'pgbell_"+schema+"'").Replace(string(text))
		if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, sql)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
