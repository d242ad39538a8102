package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Pause stops the server's processes by SIGSTOP: connections stand, the kernel accepts new ones, and nothing answers. It
// needs /proc.
func (s *Server) Pause() error {
	s.paused = true
	return s.signalAll(syscall.SIGSTOP)
}

// Resume has the server's processes go on after Pause.
func (s *Server) Resume() error {
	s.paused = false
	return s.signalAll(syscall.SIGCONT)
}

// signalAll signals the postmaster first, which then starts no more children.
func (s *Server) signalAll(signal syscall.Signal) error {
	if s.process == nil {
		return errors.New("signal postgres: it isn't running")
	}
	if err := s.process.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal postgres: %w", err)
	}
	children, err := childrenOf(s.PID())
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d of postgres: %w", pid, err)
		}
	}
	return nil
}

// childrenOf reads /proc: a backend has a process group of its own.
func childrenOf(parent int) ([]int, error) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the only error is a bad pattern
	if len(stats) == 0 {
		return nil, errors.New("find the processes of postgres: there is no /proc")
	}
	var children []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent ...: the name may have anything in it.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			children = append(children, pid)
		}
	}
	return children, nil
}
