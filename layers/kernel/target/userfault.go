// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/tracer"
)

// ErrBusy means that a running process cannot be stopped for a moment just now:
// it is in a vfork(2), for example.
var ErrBusy = errors.New("the process cannot be stopped for a moment now")

// Pause runs fn while a running process stands still, for as short a time as
// fn takes and a fraction of a millisecond more, and returns how long that was.
// No code runs in the process unless fn makes remote calls (Traced is set).
func (p *Process) Pause(ctx context.Context, fn func() error) (stopped time.Duration, err error) {
	if p.Traced != nil {
		return 0, fmt.Errorf("pid %d: %w: it is stopped already", p.Pid, ErrBusy)
	}
	begun := time.Now()
	if err := p.attach(ctx); err != nil {
		if errors.Is(err, tracer.ErrVfork) || errors.Is(err, tracer.ErrNoStop) || errors.Is(err, tracer.ErrBusy) {
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return 0, err
	}
	if p.inVfork() {
		err = fmt.Errorf("pid %d: %w", p.Pid, ErrBusy)
	} else {
		err = fn()
	}
	err = errors.Join(err, p.letGo())
	return time.Since(begun), err
}

// userFaultFlags: faults of the kernel on behalf of the process are tracked by
// write protection all the same, and no privilege is needed (userfaultfd(2)).
const userFaultFlags = unix.O_CLOEXEC | unix.O_NONBLOCK | userModeOnly

// userModeOnly is UFFD_USER_MODE_ONLY of include/uapi/linux/userfaultfd.h.
const userModeOnly = 1

// UserFault opens a userfaultfd(2) of the address space of a process that is
// stopped. The process itself makes it, and keeps no descriptor of it, also if
// the engine is killed meanwhile: with the engine's descriptor everything ends
// that was asked of it. The caller closes it.
//
// The descriptor's number is known beforehand, as nobody else runs in its table,
// so the batch that opens it can close it even if nobody is left to tell it to.
func (p *Process) UserFault() (f *os.File, err error) {
	fds, err := p.Proc.FDs()
	if err != nil {
		return nil, fmt.Errorf("list the descriptors of pid %d: %w", p.Pid, err)
	}
	open := []tracer.Call{tracer.Syscall(unix.SYS_USERFAULTFD, userFaultFlags)}
	shut := []tracer.Call{tracer.Close(newTable(fds).lowest(0))}
	err = p.Traced.RunSplit(p.Traced.Leader(), open, func() error {
		if err := tracer.Check(open); err != nil {
			return fmt.Errorf("userfaultfd: %w", err)
		}
		shut[0] = tracer.Close(int(open[0].Ret))
		n, err := unix.PidfdGetfd(p.pidfd, int(open[0].Ret), 0)
		if err != nil {
			return fmt.Errorf("take the userfaultfd of pid %d: %w", p.Pid, err)
		}
		f = os.NewFile(uintptr(n), "userfaultfd")
		return nil
	}, shut)
	if err == nil {
		err = tracer.Check(shut)
	}
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

// OnRelease has c closed when the event lets go of the process, however it
// ends: what subsystems keep about a process that may run on.
func (p *Process) OnRelease(c io.Closer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closers = append(p.closers, c)
}
