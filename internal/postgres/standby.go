package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
)

// Standby starts another server that follows s by streaming replication and can be read. It needs pg_basebackup, which comes with
// the Postgres of a Linux distribution and not with the npm package. The caller must call Stop.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	dir, owner, err := makeFolder(filepath.Dir(s.dir))
	if err != nil {
		return nil, err
	}
	standby := &Server{bin: s.bin, dir: dir, owner: owner, account: s.account, password: s.password}
	err = standby.copyOf(ctx, s)
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
	program, err := s.program("pg_basebackup")
	if err != nil {
		return err
	}
	source := url.Values{"host": {"127.0.0.1"}, "port": {strconv.Itoa(primary.port)}, "user": {"postgres"}, "password": {primary.password}}
	backup := s.command(ctx, program, "--pgdata", s.data(), "--write-recovery-conf", "--wal-method", "stream",
		"--checkpoint", "fast", "--no-sync", "--dbname", "postgresql:///?"+source.Encode())
	if output, err := backup.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, tail(output))
	}
	return nil
}

// program finds one that stands beside the real postgres, to which bin may have a link alone, and returns its path from bin.
func (s *Server) program(name string) (string, error) {
	target, err := filepath.EvalSymlinks(filepath.Join(s.bin, "postgres"))
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path, err := filepath.Rel(s.bin, filepath.Join(filepath.Dir(target), name))
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}

// Demote makes a server that was halted a standby, from its next Launch on: one that waits, and follows nobody.
func (s *Server) Demote() error {
	signal := filepath.Join(s.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o644); err != nil {
		return fmt.Errorf("demote postgres: %w", err)
	}
	return nil
}
