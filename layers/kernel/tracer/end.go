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

// End makes a frame of one thread end by itself with the given status, as
// wait(2) reports it, and takes the end as its tracer, so that it is reported
// to its parent: a zombie from then on, if the parent does not wait. The mark
// that a signal left a core file (WCOREDUMP) is not made: there is none. It
// returns when the process is dead; the handle is closed.
func (p *Process) End(status int) error {
	err := p.do(func() error {
		if !p.frame || len(p.threads) != 1 {
			return errors.New("tracer: End is for frames of one thread")
		}
		var err error
		if sig := status & 0x7f; sig != 0 {
			err = p.endBySignal(sig)
		} else {
			err = p.run(p.threads[0], []Call{Syscall(unix.SYS_EXIT_GROUP, uint64(status>>8&0xff))})
		}
		if !errors.Is(err, ErrExited) {
			return errors.Join(errors.New("it did not end"), err)
		}
		p.forget()
		return nil
	})
	if err != nil {
		return fmt.Errorf("end frame %d with status %#x: %w", p.Pid, status, err)
	}
	return nil
}

// endBySignal sends a signal and lets nothing else happen before its delivery.
// It returns ErrExited if all went well.
func (p *Process) endBySignal(sig int) error {
	th := p.threads[0]
	calls := []Call{Prctl(unix.PR_SET_DUMPABLE, 0)} // no core file
	if err := p.run(th, calls); err != nil {
		return err
	}
	if err := th.remask(blockAll &^ sigBit(sig)); err != nil {
		return err
	}
	if err := unix.Kill(p.Pid, unix.Signal(sig)); err != nil {
		return gone(err)
	}
	if err := th.resumeWith(unix.PTRACE_CONT, 0); err != nil && !errors.Is(err, ErrExited) {
		return err
	}
	deadline := time.Now().Add(DefaultTimeout)
	s, err := waitStop(th.Tid, newPace(context.Background(), deadline))
	if err == nil && (s.Event != 0 || s.Sig != sig) {
		return fmt.Errorf("it stopped by signal %d, event %d", s.Sig, s.Event)
	}
	if err == nil { // about to be delivered
		if err = th.resumeWith(unix.PTRACE_CONT, sig); err == nil {
			_, err = waitStop(th.Tid, newPace(context.Background(), deadline))
		}
	}
	if errors.Is(err, ErrExited) {
		p.drop(th)
	}
	return err
}
