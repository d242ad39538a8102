package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Standby starts another server that follows s by streaming replication and can be read. It stops s for a moment, to copy its data: not
// every Postgres that is found comes with pg_basebackup. The caller must call Stop.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	dir, owner, err := makeFolder(filepath.Dir(s.dir))
	if err != nil {
		return nil, err
	}
	standby := &Server{bin: s.bin, dir: dir, owner: owner, account: s.account, password: s.password}
	if err = s.Halt(Fast); err == nil {
		err = errors.Join(standby.copyOf(ctx, s), s.Launch(ctx))
	}
	if err == nil {
		err = standby.launchAnywhere(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, standby.Stop())
	}
	return standby, nil
}

func (s *Server) copyOf(ctx context.Context, primary *Server) error {
	if err := s.account.own(s.dir); err != nil {
		return fmt.Errorf("hand over data folder: %w", err)
	}
	if output, err := exec.CommandContext(ctx, "cp", "-a", primary.data(), s.data()).CombinedOutput(); err != nil {
		return fmt.Errorf("copy data folder: %w: %s", err, tail(output))
	}
	settings, err := os.OpenFile(filepath.Join(s.data(), "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	_, err = fmt.Fprintf(settings, "primary_conninfo = 'host=127.0.0.1 port=%d user=postgres password=%s'\n", primary.port, primary.password)
	if err := errors.Join(err, settings.Close()); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return s.Demote()
}

// Demote makes a server that was halted a standby, from its next Launch on: one that waits, and follows nobody.
func (s *Server) Demote() error {
	signal := filepath.Join(s.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		return fmt.Errorf("demote postgres: %w", err)
	}
	return nil
}
