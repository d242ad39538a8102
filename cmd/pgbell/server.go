package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/pgbell/pgbell/internal/config"
)

// server of health and metrics.
type server struct {
	listener net.Listener // nil: off
	http     *http.Server
	logger   zerolog.Logger
}

const (
	scrapeTimeout = 5 * time.Second
	maxScrapes    = 4
	stopTimeout   = 2 * time.Second
)

// newServer takes the port. Where the default one is busy it takes another; where a configured one is, that is an error.
func newServer(ctx context.Context, settings *config.Config, logger zerolog.Logger, health *health, registry *prometheus.Registry) (*server, error) {
	s := &server{logger: logger.With().Str("component", "http").Logger()}
	if settings.HTTP.Addr == "off" {
		return s, nil
	}
	var listen net.ListenConfig
	made, err := listen.Listen(ctx, "tcp", settings.HTTP.Addr)
	isDefault := settings.Origin("http.addr").Source == config.SourceDefault
	if errors.Is(err, syscall.EADDRINUSE) && isDefault {
		made, err = listen.Listen(ctx, "tcp", "127.0.0.1:0")
		if err == nil {
			s.logger.Warn().Str("busy", settings.HTTP.Addr).Str("addr", made.Addr().String()).
				Msg("the default port is in use: another one is taken; set http.addr to choose")
		}
	}
	if err != nil {
		return nil, &failure{code: exitFailure, err: fmt.Errorf("listen on http.addr %s: %w", settings.HTTP.Addr, plainListen(err)),
			hint: "choose another with PGBELL_HTTP_ADDR or http.addr; off serves nothing"}
	}
	s.listener = made
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", health.live)
	mux.HandleFunc("GET /readyz", health.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Timeout: scrapeTimeout, MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError,
	}))
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      scrapeTimeout + 5*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		// What clients do wrong is theirs to know.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	return s, nil
}

func plainListen(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

// run serves until ctx is done, and then lets requests end.
func (s *server) run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	s.logger.Info().Str("addr", s.listener.Addr().String()).Msg("serving /healthz, /readyz and /metrics")
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := s.http.Shutdown(ending); err != nil {
		_ = s.http.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
