package migrations_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pgbell/pgbell/internal/pgtest"
	"github.com/pgbell/pgbell/migrations"
)

// pooled puts a PgBouncer in transaction mode, with two server connections, before a database.
func pooled(t testing.TB, database string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatal("pgbouncer is needed: apt-get install pgbouncer")
	}
	server, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := server.User.Password()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	_ = listener.Close()

	// Not t.TempDir: its parents are closed to the user that pgbouncer runs as.
	dir, err := os.MkdirTemp("", "pgbell-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	settings := fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = plain\nauth_file = %s\npool_mode = transaction\ndefault_pool_size = 2\n", server.Hostname(), server.Port(), port, filepath.Join(dir, "users"))
	users := fmt.Sprintf("%q %q\n", server.User.Username(), password)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "ini"), []byte(settings), 0o644), os.WriteFile(filepath.Join(dir, "users"), []byte(users), 0o644),
		os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "-q", filepath.Join(dir, "ini"))
	command.Dir = dir
	command.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // which pgbouncer refuses
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		command.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := command.Start(); err != nil {
		t.Fatalf("start pgbouncer: %v", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	server.Host = "127.0.0.1:" + port
	eventually(t, "pgbouncer answers", func() bool {
		conn, err := pgx.Connect(t.Context(), server.String())
		return err == nil && conn.Close(t.Context()) == nil
	})
	return server.String()
}

func TestThroughATransactionPooler(t *testing.T) {
	t.Parallel()
	direct := pgtest.Empty(t)
	database := pooled(t, direct)
	errs := make([]error, 6)
	var group sync.WaitGroup
	for n := range errs {
		conn := connect(t, database)
		group.Go(func() {
			errs[n] = errors.Join(migrations.Up(t.Context(), conn, migrations.Config{}), migrations.Check(t.Context(), conn, "public"))
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, database)
	if !status(t, conn, "").Current {
		t.Error("not current")
	}
	inspector := connect(t, direct)
	// Nothing stays with the pooler's own sessions: no lock, no setting, no prepared statement.
	if n := one[int](t, inspector, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); n != 0 {
		t.Errorf("%d advisory locks are left", n)
	}
	for range 4 {
		var path, timeout string
		var prepared int
		if err := conn.QueryRow(t.Context(), "SELECT current_setting('search_path'), current_setting('lock_timeout'), (SELECT count(*) FROM pg_prepared_statements)",
			pgx.QueryExecModeSimpleProtocol).Scan(&path, &timeout, &prepared); err != nil {
			t.Fatal(err)
		}
		if path != `"$user", public` || timeout != "0" || prepared != 0 {
			t.Errorf("left: search_path %s, lock_timeout %s, %d prepared statements", path, timeout, prepared)
		}
	}
	if err := migrations.Down(t.Context(), conn, migrations.Config{}, migrations.DownOptions{}); err != nil {
		t.Error(err)
	}
	if rest := inventory(t, inspector, "public"); rest != "" {
		t.Errorf("left behind:\n%s", rest)
	}
}
