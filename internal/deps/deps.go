//go:build deps

// Package deps keeps modules in go.mod until the packages that need them are written.
package deps

import (
	_ "github.com/goccy/go-yaml"
	_ "github.com/jackc/pgxlisten"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/prometheus/client_golang/prometheus/collectors"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/prometheus/client_golang/prometheus/testutil"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/rs/zerolog"
	_ "github.com/spf13/cobra"
	_ "github.com/standard-webhooks/standard-webhooks/libraries/go"
	_ "go.uber.org/goleak"
	_ "golang.org/x/term"
	_ "pgregory.net/rapid"
)
