//go:build unix && !linux

package postgres

import "syscall"

// endWithParent does nothing where the kernel doesn't offer it: the next Start's sweep ends the server.
func endWithParent(*syscall.SysProcAttr) {}
