package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
)

// throughPooler puts a PgBouncer in transaction mode, which keeps no prepared statements, before a database.
func throughPooler(t *testing.T, databaseURL string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatal("this test needs PgBouncer: apt-get install pgbouncer")
		}
	}
	server, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(t.TempDir(), "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=%s port=%d user=%s password='%s'\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\n"+
		"unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n", server.Host, server.Port, server.User, server.Password, port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", file}
	if os.Geteuid() == 0 { // it refuses to stay root
		args = append([]string{"-u", "nobody"}, args...)
	}
	pooler := exec.Command(program, args...)
	if err := pooler.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pooler.Process.Kill()
		_ = pooler.Wait()
	})
	eventually(t, "pgbouncer", func() bool {
		conn, err := net.Dial("tcp", addr)
		return err == nil && conn.Close() == nil
	})
	through, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	through.Host = addr
	return through.String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probe.Close() }()
	return probe.Addr().String()
}

// Through a transaction pooler, jobs run with a direct listen_url and, deaf, without one; no statement fails.
func TestRunThroughPooler(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprintf("direct listen_url %v", direct), func(t *testing.T) {
			t.Parallel()
			databaseURL := pgtest.Migrated(t)
			pool := pgtest.Pool(t, databaseURL)
			environ := []string{}
			if direct {
				environ = append(environ, "PGBELL_LISTEN_URL="+databaseURL)
			}
			s := runSidecar(t, throughPooler(t, databaseURL), "handlers: {t: {subprocess: {command: ['true']}}}\n", environ...)
			s.awaitReady()
			s.awaitLog("database.url leads through a transaction pooler: no prepared statements are used")
			if _, err := pool.Exec(t.Context(), "INSERT INTO jobs (type) SELECT 't' FROM generate_series(1, 60)"); err != nil {
				t.Fatal(err)
			}
			left := 0
			eventually(t, "all jobs to end", func() bool {
				if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM jobs WHERE status <> 'completed'").Scan(&left); err != nil {
					t.Fatal(err)
				}
				return left == 0
			})
			if code, body := s.get("/readyz"); code != 200 || strings.Contains(body, `"heard":true`) != direct {
				t.Errorf("/readyz: %d %s", code, body)
			}
			s.signal(syscall.SIGTERM)
			if code := s.awaitExit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if failed := s.logged("database statement failed, trying again"); len(failed) > 0 {
				t.Errorf("statements failed: %v", failed)
			}
		})
	}
}
