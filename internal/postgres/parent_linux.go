package postgres

import "syscall"

// endWithParent has the kernel shut the server down at once when the thread that starts it ends.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = Immediate }
