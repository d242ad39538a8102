package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const folderPrefix = "pgbell-postgres-"

// makeFolder makes a server's folder and its owner file, which this process holds locked for as long as it lives: a
// folder whose owner file nobody holds is a dead process's.
func makeFolder(parent string) (string, *os.File, error) {
	dir, err := os.MkdirTemp(parent, folderPrefix)
	if err != nil {
		return "", nil, fmt.Errorf("make data folder: %w", err)
	}
	owner, err := lockOwner(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, owner, nil
}

func lockOwner(dir string) (*os.File, error) {
	// It gets its name when it is locked already, so that sweep never finds it free.
	unnamed, named := filepath.Join(dir, "owner.new"), filepath.Join(dir, "owner")
	file, err := os.OpenFile(unnamed, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make owner file: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = os.Rename(unnamed, named)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock owner file: %w", err), file.Close())
	}
	return file, nil
}

// removeFolder removes a stopped server's folder. Backends of a server that had to be killed may write for a moment more.
func removeFolder(dir string, owner *os.File) error {
	deadline := time.Now().Add(5 * time.Second)
	err := os.RemoveAll(dir)
	for err != nil && time.Now().Before(deadline) {
		<-time.After(50 * time.Millisecond)
		err = os.RemoveAll(dir)
	}
	_ = owner.Close() // a second Stop closes it again
	if err != nil {
		return fmt.Errorf("remove data folder: %w", err)
	}
	return nil
}

// sweep removes what killed processes of this user left in parent. A server that still runs in such a folder notices
// within a minute that its files are gone, and ends. What can't be removed now stays for the next sweep.
func sweep(parent string) {
	folders, _ := filepath.Glob(filepath.Join(parent, folderPrefix+"*")) // the only error is a bad pattern
	for _, dir := range folders {
		file, err := os.OpenFile(filepath.Join(dir, "owner"), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		info, err := file.Stat()
		if err == nil && ownedByCaller(info) && syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = file.Close()
	}
}

func ownedByCaller(info os.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
}
