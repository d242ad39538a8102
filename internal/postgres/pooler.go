package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PoolerOptions of a Pooler.
type PoolerOptions struct {
	// Mode is session, transaction or statement. Defaults to transaction.
	Mode string
	// PoolSize is how many server connections there are for each role and database. Defaults to 5.
	PoolSize int
}

// Pooler is a running PgBouncer, for the tests. Whoever can connect to the server behind it by a password can do so
// through it, as the same role.
type Pooler struct {
	folder  string
	port    int
	process *exec.Cmd
	exited  chan struct{}
	output  bytes.Buffer
}

// StartPooler starts a PgBouncer before the server that a superuser's URL leads to, and waits until it accepts
// connections. The caller must call Stop.
func StartPooler(ctx context.Context, serverURL string, options PoolerOptions) (*Pooler, error) {
	program, err := findPooler()
	if err != nil {
		return nil, err
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	parent, err := account.temporary()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(parent, "pgbell-pgbouncer-")
	if err != nil {
		return nil, fmt.Errorf("make folder of pgbouncer: %w", err)
	}
	p := &Pooler{folder: folder, exited: make(chan struct{})}
	err = p.configure(ctx, serverURL, options, account)
	if err == nil {
		err = p.launch(ctx, program, account)
	}
	if err == nil {
		err = p.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// URL is a URL of a database of the server, led through the pooler.
func (p *Pooler) URL(databaseURL string) (string, error) {
	through, err := url.Parse(databaseURL)
	if err != nil {
		return "", errors.New("read URL of the database") // the parser's own error quotes it, with its password
	}
	through.Host = p.address()
	return through.String(), nil
}

// Stop ends the pooler. It may be called more than once.
func (p *Pooler) Stop() error {
	if p.process != nil {
		_ = p.process.Process.Kill() // fails only if it has ended
		<-p.exited
	}
	return os.RemoveAll(p.folder)
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer found on this machine: install it (apt-get install pgbouncer, brew install pgbouncer or the like)")
}

func (p *Pooler) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// configure has PgBouncer ask the server for the roles' passwords, as managed poolers do.
func (p *Pooler) configure(ctx context.Context, serverURL string, options PoolerOptions, account account) error {
	server, err := pgx.ParseConfig(serverURL)
	if err != nil {
		return fmt.Errorf("read URL of the server: %w", err)
	}
	if p.port, err = freePort(ctx); err != nil {
		return err
	}
	if options.Mode == "" {
		options.Mode = "transaction"
	}
	if options.PoolSize == 0 {
		options.PoolSize = 5
	}
	ini, users := filepath.Join(p.folder, "ini"), filepath.Join(p.folder, "users")
	settings := fmt.Sprintf(`[databases]
* = host=%s port=%d auth_user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = %s
default_pool_size = %d
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
log_stats = 0
server_idle_timeout = 5
`, server.Host, server.Port, server.User, p.port, users, options.Mode, options.PoolSize)
	passwords := fmt.Sprintf("%q %q\n", server.User, server.Password)
	err = errors.Join(os.WriteFile(ini, []byte(settings), 0o600), os.WriteFile(users, []byte(passwords), 0o600),
		account.own(p.folder), account.own(ini), account.own(users))
	if err != nil {
		return fmt.Errorf("configure pgbouncer: %w", err)
	}
	return nil
}

func (p *Pooler) launch(ctx context.Context, program string, account account) error {
	process := exec.CommandContext(context.WithoutCancel(ctx), program, filepath.Join(p.folder, "ini"))
	process.Stdout, process.Stderr = &p.output, &p.output
	process.SysProcAttr = &syscall.SysProcAttr{Credential: account.credential, Setpgid: true}
	endWithParent(process.SysProcAttr)
	started := make(chan error, 1)
	go func() {
		// endWithParent means the thread that forks: this one, which lives as long as the pooler.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := process.Start()
		started <- err
		if err == nil {
			_ = process.Wait() // how it ended is in its output
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start pgbouncer: %w", err)
	}
	p.process = process
	return nil
}

func (p *Pooler) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("pgbouncer ended at once: %s", tail(p.output.Bytes()))
		case <-ctx.Done():
			return fmt.Errorf("wait for pgbouncer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
