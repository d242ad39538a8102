package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/pgbell/pgbell/migrations"
)

func (a *app) newVersionCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if asJSON {
				return writeJSON(a.stdout, map[string]any{"version": version, "schema_version": migrations.Version,
					"go": runtime.Version(), "platform": platform})
			}
			_, err := fmt.Fprintf(a.stdout, "pgbell %s (schema version %d, %s, %s)\n", version, migrations.Version, runtime.Version(), platform)
			return err
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return command
}
