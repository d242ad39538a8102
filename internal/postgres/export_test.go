package postgres

import (
	"context"
	"syscall"
)

// FindBinUnder is FindBin, of a major version or 0 for any, with the systems' well-known folders looked for under root.
func FindBinUnder(root string, major int) (string, error) {
	return search{root: root, major: major}.find()
}

// Reach says whether the user nobody could get to a folder.
func Reach(folder string) error { return nobody().reach(folder) }

// Temporary is where the user nobody could have its data folder.
func Temporary() (string, error) { return nobody().temporary() }

func nobody() account {
	return account{name: "nobody", credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// NPMBin is the folder of the binaries in the npm package of a major version, or 0 for any.
func NPMBin(ctx context.Context, cache string, major int, notice func(string)) (string, error) {
	return npmBin(ctx, cache, major, notice)
}

// LinkAll makes the links of an unpacked npm package.
func LinkAll(folder string) error { return linkAll(folder) }

var ErrNoNPM = errNoNPM
