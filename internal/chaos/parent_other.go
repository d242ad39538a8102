//go:build !linux

package chaos

import "syscall"

// endWithParent does nothing where the kernel doesn't offer it: a run that is killed leaves its children.
func endWithParent(*syscall.SysProcAttr) {}
