// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
)

// OptionSemUndo is the policy for processes that have to take back what they did
// to semaphores at their end (SEM_UNDO): UndoRefuse, the default, or UndoDrop,
// which warns. The kernel tells nobody what that is. Without it a semaphore that
// is held would be given back once too often by a process that ends later.
const OptionSemUndo = "semundo"

// Values of OptionSemUndo.
const (
	UndoRefuse = "refuse"
	UndoDrop   = "drop"
)

// undo looks for a list of such adjustments. A process has none until it uses
// SEM_UNDO or makes a thread (ipc/sem.c, copy_semundo), but execve(2) keeps it: a
// container's init, and whatever else is started from outside, has that of the
// runtime. Of these and of processes with threads it is not known whether there is
// anything in it, so it is a warning.
func (s *Subsystem) undo(t procfs.Task) ([]record.Finding, error) {
	drop := false
	switch v := s.env.Options[OptionSemUndo]; v {
	case "", UndoRefuse:
	case UndoDrop:
		drop = true
	default:
		return nil, fmt.Errorf("option %s=%s is not known: %s or %s", OptionSemUndo, v, UndoRefuse, UndoDrop)
	}
	none, err := withoutUndo(t.Pid())
	if err != nil || none {
		return nil, err
	}
	st, err := t.Status()
	if err != nil {
		return nil, err
	}
	pids, err := s.env.Source.Pids()
	if err != nil {
		return nil, err
	}
	unknown := st.Threads > 1 || !slices.Contains(pids, st.PPid)
	f := record.Finding{
		Pid: t.Pid(), FD: -1, Subsystem: Name, Warning: drop || unknown,
		What:   "adjustments of System V semaphores at the end of the process (SEM_UNDO)",
		Why:    "the kernel does not tell them: they are not carried",
		Remedy: "choose " + OptionSemUndo + "=" + UndoDrop + " if no process holds a semaphore, or let the program use other locks (Apache: Mutex pthread)",
	}
	if unknown {
		f.Why = "the kernel does not tell them, nor whether the process has any: they are not carried"
	}
	return []record.Finding{f}, nil
}

// withoutUndo reports whether a process has no list of adjustments: kcmp(2) calls
// it equal then with a thread that has none. Go's threads share one, so this one
// leaves it first.
func withoutUndo(pid int) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := unix.Gettid()
	// Nothing in between: a thread that this one makes would share a new list.
	_, _, e1 := unix.RawSyscall(unix.SYS_UNSHARE, unix.CLONE_SYSVSEM, 0, 0)
	order, _, e2 := unix.RawSyscall6(unix.SYS_KCMP, uintptr(self), uintptr(pid), uintptr(target.ResourceSysVSem), 0, 0, 0)
	if e1 != 0 {
		return false, os.NewSyscallError("unshare", e1)
	}
	if e2 != 0 {
		return false, os.NewSyscallError("kcmp", e2)
	}
	return order == 0, nil
}
