// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// EndLeader has the leader of a frame end alone, with an exit code, as a main
// thread does by pthread_exit(3). Its threads live on: Leader is one of them from
// then on. The process is no less of a frame: it still dies with its tracer.
func (p *Process) EndLeader(code int) error {
	err := p.do(func() error {
		if !p.frame || len(p.threads) < 2 || p.threads[0].Tid != p.Pid {
			return errors.New("tracer: EndLeader is for frames with several threads and a leader")
		}
		if _, err := p.ensureScratch(); err != nil {
			return err
		}
		return p.endLeader(code)
	})
	if err != nil {
		return fmt.Errorf("end the leader of frame %d: %w", p.Pid, err)
	}
	return nil
}

func (p *Process) endLeader(code int) error {
	th := p.threads[0]
	c := cursor{Batch: Batch{th, []Call{Syscall(unix.SYS_EXIT, uint64(code))}}}
	var out gather
	if err := p.makeRoom(&c, &out); err != nil {
		return err
	}
	if err := p.writeAll(&out); err != nil {
		return err
	}
	// Let go before it ends: nobody could let go of a dead one, its parent is not
	// told of the end of a process whose leader is traced, and the threat that it
	// dies with us would be carried out on its threads.
	if err := th.enter(loopRegisters(th.regs, p.scratch.base, th.slot.calls, c.n+1, 0), blockAll); err != nil {
		return err
	}
	if err := ptraceDetach(th.Tid, 0); err != nil {
		return gone(err)
	}
	for deadline := p.batchDeadline(); !p.leaderEnded(); {
		if time.Now().After(deadline) {
			return &NoStopError{Tid: th.Tid, Syscall: currentSyscall(p.Pid, th.Tid)}
		}
		time.Sleep(50 * time.Microsecond)
	}
	th.gone, th.running = true, false
	p.threads = p.threads[1:]
	p.withoutLeader()
	p.boot.thread = p.threads[0]
	return nil
}
