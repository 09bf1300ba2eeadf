// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stop is a ptrace stop: a signal-delivery-stop (Event 0), a system call
// stop (Sig == syscallStop), a group-stop or interrupt (eventStop), or
// another event.
type stop struct{ Sig, Event int }

// errPending: nothing to report yet.
var errPending = errors.New("no stop yet")

// peekStop looks for a stop of tid without consuming anything: a second look
// reports it again until the task is resumed, and an exit status stays for
// the task's real parent, who may be a thread of this very process. ECHILD
// (not traced by us, already gone) and exits are ErrExited.
func peekStop(tid int) (stop, error) {
	var info [128]byte
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(tid), uintptr(unsafe.Pointer(&info)),
			unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, 0, 0)
		switch e {
		case 0:
		case unix.EINTR:
			continue
		case unix.ECHILD:
			return stop{}, ErrExited
		default:
			return stop{}, e
		}
		break
	}
	const exited, killed, dumped = 1, 2, 3 // CLD_*
	if binary.LittleEndian.Uint32(info[16:]) == 0 {
		return stop{}, errPending
	}
	switch binary.LittleEndian.Uint32(info[8:]) {
	case exited, killed, dumped:
		return stop{}, ErrExited
	}
	status := int(int32(binary.LittleEndian.Uint32(info[24:])))
	return stop{Sig: status & 0xff, Event: status >> 8}, nil
}

// pace is how polling for stops goes on: there is no wait4 with a time-out,
// and no other thread can interrupt one reliably. At first it yields (a batch
// takes about 5 us), then it sleeps an eighth of the time waited so far, at
// most 1 ms; the stop's SIGCHLD ends a sleep. It does not yield for long: where no
// processor is idle the tracee waits for this one, and a yield is not for those of
// other sessions.
type pace struct {
	ctx      context.Context
	start    time.Time
	deadline time.Time
	// idle, if set, is called when a wait turns out long, and whenever it has
	// become twice as long: it may look at thousands of threads.
	idle func() error
	long time.Duration
}

func newPace(ctx context.Context, deadline time.Time) *pace {
	return &pace{ctx: ctx, start: time.Now(), deadline: deadline, long: time.Millisecond}
}

// wait returns after a while, or with the reason not to go on.
func (p *pace) wait() error {
	const yieldFor = 20 * time.Microsecond
	waited := time.Since(p.start)
	if waited < yieldFor {
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		return nil
	}
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if time.Now().After(p.deadline) {
		return ErrNoStop
	}
	if waited > p.long && p.idle != nil {
		p.long = 2 * waited
		if err := p.idle(); err != nil {
			return err
		}
	}
	ts := unix.NsecToTimespec(int64(min(waited/8, time.Millisecond)))
	_ = unix.Nanosleep(&ts, nil)
	return nil
}

// waitStop waits for the next stop of tid.
func waitStop(tid int, p *pace) (stop, error) {
	for {
		s, err := peekStop(tid)
		if err != errPending { //nolint:errorlint // private sentinel, never wrapped
			return s, err
		}
		if err := p.wait(); err != nil {
			return stop{}, err
		}
	}
}

// reap takes the exit status of a thread that is not the leader: as its
// tracer we must, or it stays a zombie. The leader's status is for its
// parent; if that is another process, the kernel passes it on only after the
// tracer has taken it.
func reap(tid int) {
	var ws unix.WaitStatus
	_, _ = unix.Wait4(tid, &ws, unix.WALL|unix.WNOHANG, nil)
}

// noStop describes why a thread does not stop.
func (p *Process) noStop(th *Thread) error {
	pid, tid := p.Pid, th.Tid
	st, err := readStatus(pid, tid)
	if err != nil {
		return err
	}
	e := &NoStopError{Tid: tid, State: st.State, Syscall: currentSyscall(pid, tid)}
	e.Vfork = st.State == 'D' && isVfork(e.Syscall)
	return e
}
