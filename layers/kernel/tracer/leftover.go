// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// leftover is the scratch area of a tracer that died.
type leftover struct {
	Range
	code  Range
	stamp uint64 // CLOCK_MONOTONIC at its creation
}

// leftoverAge is how old a leftover must be before a successor unmaps it: a
// signal handler that ran on top of an injection (the moment between SETREGS
// and SETSIGMASK) may still have to return through it.
const leftoverAge = 2 * time.Second

// findLeftovers looks for what dead predecessors left. ErrBusy: a thread is
// still on its way out of such an injection; its registers are not the
// program's. It gets out by itself as soon as it may run, or has been carried
// out if job control has stopped it on its way.
func (p *Process) findLeftovers() error {
	maps, err := readMaps(p.via())
	if err != nil {
		return notThere(err)
	}
	p.leftovers = nil
	for i := range maps {
		m := &maps[i]
		// Shared memory (of /dev/zero, says the kernel), if there was a guard.
		if plain := m.Inode == 0 && m.Name == "" || m.Shared && m.Name == "/dev/zero"; !plain || !m.Exec || m.Write || m.len() != pageSize {
			continue
		}
		head := make([]byte, scratchLoop)
		if p.Read(m.Start, head) != nil || !isLeftover(m.Start, head) {
			continue
		}
		l := leftover{Range: Range{m.Start, m.End}, code: Range{m.Start, m.End}, stamp: leUint64(head[scratchStamp:])}
		for _, d := range maps[i+1:] {
			if d.Start != l.End || !d.Write || d.Inode != 0 || d.End-l.Start > scratchMaxLen {
				break
			}
			l.End = d.End
		}
		p.leftovers = append(p.leftovers, l)
	}
	tops := p.stackTops()
	for i, th := range p.threads {
		if p.injected(th, tops[i]) {
			if th.Stopped != 0 {
				if err := p.carryOut(th); err != nil {
					return err
				}
			}
			return fmt.Errorf("task %d: %w", th.Tid, ErrBusy)
		}
	}
	return nil
}

// isLeftover recognises a code page by its magic, or by its address if the
// tracer died before it could fill it.
func isLeftover(addr uint64, head []byte) bool {
	if string(head[:len(scratchMagic)]) == scratchMagic {
		return true
	}
	return addr%holeStep == holeMark && bytes.Equal(head, make([]byte, len(head)))
}

// stackTops are those of all threads, read together, with zeroes for what cannot be
// read.
func (p *Process) stackTops() [][]byte {
	all := make([]byte, len(p.threads)*stackTop)
	var in gather
	for i, th := range p.threads {
		in.add(th.regs.Rsp-8, all[i*stackTop:][:stackTop])
	}
	if p.readAll(&in) != nil { // the kernel stops at the first that it cannot read
		for i, th := range p.threads {
			if p.Read(th.regs.Rsp-8, in.local[i]) != nil {
				clear(in.local[i])
			}
		}
	}
	return in.local
}

// stackTop is how much of a stack shows a frame of ours, from the word below the
// stack pointer on, in bytes.
const stackTop = frameMagicAt + len(frameMagic) + 8

// inInjection is injected, for one thread.
func (p *Process) inInjection(th *Thread) bool {
	top := make([]byte, stackTop)
	if p.Read(th.regs.Rsp-8, top) != nil {
		clear(top)
	}
	return p.injected(th, top)
}

// injected says whether a thread stopped in injected code: in a leftover
// scratch page, or between two gadgets with one of our frames on its stack, whose
// top is given.
func (p *Process) injected(th *Thread, top []byte) bool {
	for _, l := range p.leftovers {
		if th.regs.Rip >= l.code.Start && th.regs.Rip < l.code.End {
			return true
		}
	}
	if !isSigframe(top) && !isSigframe(top[8:]) {
		return false
	}
	code := make([]byte, 2*gadgetMaxLen)
	return p.Read(th.regs.Rip-uint64(gadgetMaxLen), code) == nil && bytes.Contains(code, gadgetSyscallRet[:2])
}

// carryOut lets a thread that is stopped by job control run to the end of a dead
// predecessor's injection. It does not leave the group-stop for the program: it
// is stopped again before the first instruction of that.
func (p *Process) carryOut(th *Thread) error {
	pace := newPace(context.Background(), p.batchDeadline())
	for {
		if err := th.resumeWith(unix.PTRACE_SYSCALL, 0); err != nil {
			return err
		}
		s, err := waitStop(th.Tid, pace)
		if errors.Is(err, ErrExited) {
			p.drop(th)
		}
		if err != nil {
			return fmt.Errorf("task %d: end of an injection: %w", th.Tid, err)
		}
		th.running = false
		if th.regs, err = ptraceGetRegs(th.Tid); err != nil {
			return gone(err)
		}
		// The way back is rt_sigreturn(2): behind it the registers are the
		// program's. A signal here is the one that ends a batch.
		if s.Event == 0 && s.Sig == syscallStop && !p.inInjection(th) {
			return nil
		}
	}
}

// ScratchRanges returns the mappings that belong to injections, this one's, those
// of processes with the same address space and leftovers of dead predecessors: a
// checkpoint leaves them out.
func (p *Process) ScratchRanges() []Range {
	var out []Range
	_ = p.Do(func() error {
		for _, l := range p.leftovers {
			out = append(out, l.Range)
		}
		if s := p.scratch; s != nil {
			out = append(out, Range{s.base, s.end})
		}
		out = append(out, p.matesAreas()...)
		return nil
	})
	return out
}

// monotonic is CLOCK_MONOTONIC in nanoseconds: the same on all processes of
// a host, unlike Go's.
func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
	return uint64(ts.Nano())
}

// clearLeftovers unmaps what is old enough, through call. Where processes have the
// address space in common all of them have found the same, and one may have cleared
// it and be there now.
func (p *Process) clearLeftovers(call func(*Call) error) error {
	kept, taken := p.leftovers[:0], p.matesAreas()
	for _, l := range p.leftovers {
		if slices.ContainsFunc(taken, func(r Range) bool { return l.Start < r.End && r.Start < l.End }) {
			continue
		}
		if time.Duration(monotonic()-l.stamp) < leftoverAge {
			kept = append(kept, l)
			continue
		}
		c := Munmap(l.Start, l.End-l.Start)
		if err := call(&c); err != nil {
			return err
		}
	}
	p.leftovers = kept
	return nil
}
