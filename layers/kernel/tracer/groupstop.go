// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// GroupStop puts a frame into a group-stop (state T), as SIGSTOP does: Detach
// leaves it stopped, until somebody sends SIGCONT. It returns when every thread
// has taken part, so the parent has been told (SIGCHLD, wait(2)) by then. Remote
// calls work before and after.
//
// Sources: ptrace(2), "Group-stop"; do_signal_stop in kernel/signal.c.
func (p *Process) GroupStop() error {
	err := p.do(func() error {
		if !p.frame {
			return errors.New("tracer: GroupStop is for frames")
		}
		if err := unix.Kill(p.Pid, unix.SIGSTOP); err != nil {
			return gone(err)
		}
		for _, th := range p.live() {
			if err := th.intoGroupStop(); err != nil {
				return fmt.Errorf("task %d: %w", th.Tid, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("stop frame %d: %w", p.Pid, err)
	}
	return nil
}

// intoGroupStop resumes a thread, which has SIGSTOP or its process's stop before
// it and runs no instruction, until it reports the group-stop.
func (th *Thread) intoGroupStop() error {
	if err := th.remask(blockAll); err != nil {
		return err
	}
	th.entered = true // its mask and registers are to be set again
	sig := 0
	deadline := time.Now().Add(DefaultTimeout)
	for {
		if err := th.resumeWith(unix.PTRACE_CONT, sig); err != nil {
			return err
		}
		s, err := waitStop(th.Tid, newPace(context.Background(), deadline))
		if errors.Is(err, ErrExited) {
			th.p.drop(th)
		}
		if err != nil {
			return err
		}
		th.running = false
		switch {
		case s.Event == eventStop && isStopSignal(s.Sig):
			th.Stopped = s.Sig
			return nil
		case s.Event == 0 && s.Sig == int(unix.SIGSTOP):
			sig = s.Sig
		default:
			return fmt.Errorf("it stopped by signal %d, event %d", s.Sig, s.Event)
		}
	}
}
