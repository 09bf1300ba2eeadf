// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
)

// Errors a caller may want to tell apart with errors.Is. Each arrives
// wrapped in a message that names the task and the remedy.
var (
	// ErrExited: the process or thread ended, or was killed, meanwhile.
	ErrExited = errors.New("task has exited")
	// ErrTraced: another tracer holds the task; see TracedError.
	ErrTraced = errors.New("task is already traced")
	// ErrNoStop: a task did not stop before the deadline; see NoStopError.
	ErrNoStop = errors.New("task did not stop")
	// ErrVfork: a task waits for its vfork child and cannot stop before
	// the child execs or exits. Let the child run a few ms, then try again.
	ErrVfork = errors.New("task waits for its vfork child")
	// Err32Bit: the task runs in compatibility mode.
	Err32Bit = errors.New("32-bit tasks are not supported")
	// ErrSeccomp: the task has a seccomp filter and the kernel refuses to
	// suspend it (CAP_SYS_ADMIN and CONFIG_CHECKPOINT_RESTORE are needed,
	// and the engine itself must not be under seccomp).
	ErrSeccomp = errors.New("the task's seccomp filter cannot be suspended")
	// ErrShadowStack: the task uses user shadow stacks (CET).
	ErrShadowStack = errors.New("user shadow stacks are not supported")
	// ErrUserDispatch: the task has its system calls sent to itself, and would
	// get ours, too (Documentation/admin-guide/syscall-user-dispatch.rst).
	ErrUserDispatch = errors.New("syscall user dispatch is not supported")
	// ErrNoGadget: no instruction sequence for a kill-safe call was found.
	ErrNoGadget = errors.New("no code for a kill-safe remote call")
	// ErrNoStackRoom: no memory known to be dead was found for the first
	// signal frame.
	ErrNoStackRoom = errors.New("no dead stack memory for a signal frame")
	// ErrScratch: the remote scratch area could not be mapped.
	ErrScratch = errors.New("the remote scratch area cannot be mapped")
	// ErrBusy: a dead predecessor's injection is still on its way out.
	ErrBusy = errors.New("a previous injection has not ended yet")
	// ErrBatch: a batch ended other than at its end; see BatchError.
	ErrBatch = errors.New("remote batch did not complete")
	// ErrClosed: the tracer, or the process handle, was closed.
	ErrClosed = errors.New("tracer is closed")
)

// TracedError says who traces a task.
type TracedError struct {
	Tid, TracerPid int
}

func (e *TracedError) Error() string {
	return fmt.Sprintf("task %d is traced by process %d (a debugger or strace?): detach it and try again", e.Tid, e.TracerPid)
}

// Is makes errors.Is(err, ErrTraced) true.
func (e *TracedError) Is(target error) bool { return target == ErrTraced }

// NoStopError names the task that did not stop and what it was doing.
type NoStopError struct {
	Tid     int
	State   byte   // state letter of /proc/PID/stat
	Syscall string // content of /proc/PID/syscall, "" if unreadable
	Vfork   bool
}

func (e *NoStopError) Error() string {
	if e.Vfork {
		return fmt.Sprintf("task %d waits for its vfork child and cannot stop: let the child exec or exit and try again", e.Tid)
	}
	return fmt.Sprintf("task %d did not stop in time (state %c, system call %s)", e.Tid, e.State, e.Syscall)
}

// Is makes errors.Is work with ErrNoStop and, where it applies, ErrVfork.
func (e *NoStopError) Is(target error) bool {
	return target == ErrNoStop || (e.Vfork && target == ErrVfork)
}

// BatchError tells where a batch was when it ended abnormally. The thread
// itself is unharmed: its registers are put back by Detach or Leave.
type BatchError struct {
	Tid    int
	Call   int    // index of the call that was being made, -1 if unknown
	Nr     uint64 // its number
	Signal int    // the signal or stop seen
	Cause  error  // ErrExited, a deadline, or nil
}

func (e *BatchError) Error() string {
	s := fmt.Sprintf("remote batch in task %d stopped at call %d (system call %d)", e.Tid, e.Call, e.Nr)
	if e.Signal != 0 {
		s += fmt.Sprintf(" by signal %d", e.Signal)
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *BatchError) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, ErrBatch) true.
func (e *BatchError) Is(target error) bool { return target == ErrBatch }
