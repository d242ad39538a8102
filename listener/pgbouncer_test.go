package listener_test

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
)

// startBouncer runs a real PgBouncer in front of a database, and returns the database's URL through it.
func startBouncer(t *testing.T, databaseURL, mode string) string {
	t.Helper()
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			t.Fatal("these tests need PgBouncer: apt-get install pgbouncer")
		}
	}
	server, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := probe.Addr().(*net.TCPAddr).Port
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	configuration := filepath.Join(t.TempDir(), "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=%s port=%d user=%s password='%s'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 5
`, server.Host, server.Port, server.User, server.Password, port, mode)
	if err := os.WriteFile(configuration, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	arguments := []string{configuration}
	if os.Geteuid() == 0 { // it refuses to stay root
		arguments = []string{"-u", "nobody", configuration}
	}
	command := exec.Command(binary, arguments...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("pgbouncer:\n%s", &output)
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	await(t, "pgbouncer answers", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	through, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	through.Host = address
	return through.String()
}
