package chaos

import "syscall"

// endWithParent has the kernel kill a child when the thread that starts it ends: a run that is killed leaves none.
func endWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
