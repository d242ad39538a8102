package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who a server runs as: the caller, or as root an unprivileged user, since Postgres refuses to run as root.
type account struct {
	name       string
	credential *syscall.Credential // nil: the caller
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{name: name, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return account{}, errors.New("postgres refuses to run as root, and there is no user postgres or nobody to run it as")
}

// own hands a file or folder over to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// reach says whether the account can get to a folder; the error names the folder that is in its way.
func (a account) reach(folder string) error {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return err
	}
	if a.credential == nil {
		return nil
	}
	for {
		info, err := os.Stat(folder)
		if err != nil {
			return err
		}
		if !a.enters(info) {
			return fmt.Errorf("the user %s, which the server runs as, can't enter %s", a.name, folder)
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return nil
		}
		folder = parent
	}
}

func (a account) enters(info fs.FileInfo) bool {
	bit := fs.FileMode(0o001)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		switch {
		case owner.Uid == a.credential.Uid:
			bit = 0o100
		case owner.Gid == a.credential.Gid:
			bit = 0o010
		}
	}
	return info.Mode().Perm()&bit != 0
}

// temporary is the folder to make data folders in: the system's temporary one, or the first after it that the account
// can get to, since root's TMPDIR is often closed to others.
func (a account) temporary() (string, error) {
	var errs []error
	for _, folder := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		err := a.reach(folder)
		if err == nil {
			return folder, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("find a temporary folder (set TMPDIR to one): %w", errors.Join(errs...))
}
