// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// RunSplit makes the calls of first in thread th, then runs between while the
// thread stands still behind them, then makes the calls of rest; between may
// look at the results of first and change rest. If the tracer dies in between,
// the thread makes the calls of rest as they were at the beginning: what first
// has made, rest can take away whatever happens. Where no signal can end a batch
// (see doc.go), or a filter kills for one of the calls, that promise does not hold, and
// a death in between leaves it.
//
// The calls of both together are at most maxCalls-2.
func (p *Process) RunSplit(th *Thread, first []Call, between func() error, rest []Call) error {
	return p.do(func() error {
		if _, err := p.ensureScratch(); err != nil {
			return err
		}
		if p.stopSig == 0 {
			return p.runApart(th, first, between, rest)
		}
		s, err := p.startSplit(th, first, rest)
		if err != nil {
			return fmt.Errorf("start batch in task %d: %w", th.Tid, err)
		}
		return s.run(between)
	})
}

// runApart is RunSplit by two batches.
func (p *Process) runApart(th *Thread, first []Call, between func() error, rest []Call) error {
	if err := p.run(th, first); err != nil {
		return err
	}
	return errors.Join(between(), p.run(th, rest))
}

// split is a batch with a stop in its middle.
type split struct {
	p           *Process
	th          *Thread
	first, rest []Call
}

// startSplit writes first, a signal, rest and the signal that ends the batch,
// and sets the thread going.
func (p *Process) startSplit(th *Thread, first, rest []Call) (*split, error) {
	s := &split{p, th, first, rest}
	n := len(first) + len(rest) + 2
	if n > maxCalls {
		return nil, fmt.Errorf("%d calls, at most %d", n, maxCalls)
	}
	stop := p.lastCall(th)
	calls := append(append(slices.Clone(first), stop), rest...)
	var out gather // the calls and, behind them, the one that ends the batch
	if err := p.makeRoom(&cursor{Batch: Batch{th, calls}}, &out); err != nil {
		return nil, err
	}
	if err := p.writeAll(&out); err != nil {
		th.prepared = false
		return nil, err
	}
	mask, request := p.batchMode()
	r := loopRegisters(th.regs, p.scratch.base, th.slot.calls, n, th.slot.frame)
	if p.guard != nil && th.diesOf(append(calls, stop)) {
		r = th.guardRegisters(r)
	} // else without a guard: the rest is to be made whatever happens
	if err := th.enter(r, mask); err != nil {
		return nil, err
	}
	return s, th.resumeWith(request, 0)
}

// restAt is where the calls behind the stop lie.
func (s *split) restAt() uint64 { return s.th.slot.calls + uint64(len(s.first)+1)*CallSize }

// run waits for the stop in the middle and carries the batch to its end.
func (s *split) run(between func() error) error {
	p, th := s.p, s.th
	if err := s.await(len(s.rest) + 2); err != nil {
		return (&cursor{Batch: Batch{th, s.first}}).failed(err)
	}
	err := s.take(s.first, th.slot.calls)
	if err == nil {
		err = between()
	}
	// Whatever that said, the way leads on.
	err = errors.Join(err, p.Write(s.restAt(), appendCalls(nil, s.rest)), th.resumeWith(unix.PTRACE_CONT, 0))
	if e := s.await(1); e != nil {
		return errors.Join(err, (&cursor{Batch: Batch{th, s.rest}}).failed(e))
	}
	return errors.Join(err, s.take(s.rest, s.restAt()))
}

// await waits for the batch's own signal with left calls to go, that one
// included.
func (s *split) await(left int) error {
	p := s.p
	return p.await(s.th, p.batchDeadline(), unix.PTRACE_CONT, func(st stop) bool {
		if st.Event != 0 || st.Sig != p.stopSig {
			return false
		}
		var r amd64.Registers
		r, err := ptraceGetRegs(s.th.Tid)
		return err == nil && r.Rip == p.scratch.base+scratchLoop+loopAfterCall && r.R12 == uint64(left)
	})
}

func (s *split) take(calls []Call, at uint64) error {
	b := make([]byte, len(calls)*CallSize)
	if err := s.p.Read(at, b); err != nil {
		return err
	}
	takeResults(calls, b)
	return nil
}
