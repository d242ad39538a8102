// Package postgres runs a throwaway Postgres server of its own, from binaries found on this machine, for the tests, the
// demo and the benchmarks. Nothing outlives Stop: the server listens on a loopback port and keeps its data in a temporary
// folder.
//
// Postgres refuses to run as root. As root, the server runs as the user postgres, or else nobody, and owns the folder.
package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options of a server. The zero value is a server for tests: fast, and not crash-safe against power loss.
type Options struct {
	// Bin is the folder with initdb and postgres. Defaults to what FindBin finds.
	Bin string
	// Settings go to postgresql.conf, over the package's own.
	Settings map[string]string
	// Dir is where the data folder is made. Defaults to the system's temporary folder.
	Dir string
	// Durable keeps fsync, full_page_writes and synchronous_commit on, as a real installation has them.
	Durable bool
}

// Server is a running Postgres. Its methods are not for use by several goroutines at once.
type Server struct {
	bin, dir, password string
	port               int
	credential         *syscall.Credential
	process            *exec.Cmd
	exited             chan struct{}
}

// Start makes a data folder, starts a server in it and waits until it accepts connections. The caller must call Stop.
func Start(ctx context.Context, options Options) (*Server, error) {
	bin := options.Bin
	if bin == "" {
		var err error
		if bin, err = FindBin(); err != nil {
			return nil, err
		}
	}
	root, err := os.MkdirTemp(options.Dir, "pgbell-postgres-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	server := &Server{bin: bin, dir: root}
	if err := server.create(ctx, options); err != nil {
		os.RemoveAll(root)
		return nil, err
	}
	if err := server.Launch(ctx); err != nil {
		server.Stop()
		return nil, err
	}
	return server, nil
}

// URL of a database on the server.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", s.password, s.port, database)
}

// Port that the server listens on.
func (s *Server) Port() int { return s.port }

// Log is the path of the server's log.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }

// PID of the postmaster, 0 if it isn't running.
func (s *Server) PID() int {
	if s.process == nil {
		return 0
	}
	return s.process.Process.Pid
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) create(ctx context.Context, options Options) error {
	if os.Geteuid() == 0 {
		credential, err := unprivileged()
		if err != nil {
			return err
		}
		s.credential = credential
		if err := os.Chown(s.dir, int(credential.Uid), int(credential.Gid)); err != nil {
			return fmt.Errorf("hand over data folder: %w", err)
		}
	}
	secret := make([]byte, 16)
	rand.Read(secret)
	s.password = hex.EncodeToString(secret)
	passwordFile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(s.password), 0o600); err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	defer os.Remove(passwordFile)
	if s.credential != nil {
		if err := os.Chown(passwordFile, int(s.credential.Uid), int(s.credential.Gid)); err != nil {
			return fmt.Errorf("hand over password file: %w", err)
		}
	}
	initdb := s.command(ctx, "initdb", "--pgdata", s.data(), "--username", "postgres", "--auth", "scram-sha-256",
		"--pwfile", passwordFile, "--encoding", "UTF8", "--locale", "C", "--no-sync")
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, strings.TrimSpace(string(output)))
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	s.port = port
	return s.configure(options)
}

func (s *Server) configure(options Options) error {
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"port":                      strconv.Itoa(s.port),
		"unix_socket_directories":   "",
		"max_connections":           "300",
		"max_prepared_transactions": "20",
	}
	if !options.Durable {
		settings["fsync"], settings["full_page_writes"], settings["synchronous_commit"] = "off", "off", "off"
	}
	for name, value := range options.Settings {
		settings[name] = value
	}
	var text strings.Builder
	for name, value := range settings {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	file, err := os.OpenFile(filepath.Join(s.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	_, err = file.WriteString(text.String())
	return errors.Join(err, file.Close())
}

// Launch starts the server again after Halt, on the same port with the same data, and waits until it accepts connections.
func (s *Server) Launch(ctx context.Context) error {
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	s.process = s.command(context.WithoutCancel(ctx), "postgres", "-D", s.data())
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		s.process = nil
		return fmt.Errorf("start postgres: %w", err)
	}
	process, exited := s.process, make(chan struct{})
	s.exited = exited
	go func() {
		process.Wait()
		close(exited)
	}()
	return s.await(ctx)
}

func (s *Server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			log, _ := os.ReadFile(s.Log())
			return fmt.Errorf("postgres ended at once: %s", strings.TrimSpace(string(log)))
		case <-ctx.Done():
			return fmt.Errorf("wait for postgres: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signals for Halt, by the server's shutdown modes.
const (
	Smart     = syscall.SIGTERM
	Fast      = syscall.SIGINT
	Immediate = syscall.SIGQUIT
)

// Halt stops the server and keeps its data. Mode is Smart, Fast or Immediate; the last is a crash.
func (s *Server) Halt(mode syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(mode); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal postgres: %w", err)
	}
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		s.process.Process.Kill()
		<-s.exited
	}
	s.process = nil
	return nil
}

// Stop ends the server and removes all that it wrote. It may be called more than once.
func (s *Server) Stop() error {
	return errors.Join(s.Halt(Immediate), os.RemoveAll(s.dir))
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	command.Dir = s.dir
	command.Env = append(os.Environ(), "LC_ALL=C", "PGOPTIONS=")
	// Its own process group: Ctrl-C at the terminal is for the caller, who stops the server in order.
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential, Setpgid: true}
	return command
}

func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("postgres refuses to run as root, and there is no user postgres or nobody to run it as")
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
