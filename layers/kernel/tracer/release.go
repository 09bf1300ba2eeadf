// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Release is a frame's last step before Commit and Detach: it unmaps the
// scratch area, through a system call instruction of the final memory layout
// (the vDSO's, as a rule), and gives every thread its registers and mask.
// After it no remote call is possible.
func (p *Process) Release() error {
	err := p.do(func() error {
		if !p.frame {
			return errors.New("tracer: Release is for frames, Detach for sources")
		}
		if err := p.releaseScratch(); err != nil {
			return err
		}
		for _, th := range p.live() {
			if err := p.finish(th); err != nil {
				return fmt.Errorf("task %d: %w", th.Tid, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("release frame %d: %w", p.Pid, err)
	}
	return nil
}

func (p *Process) releaseScratch() error {
	s := p.scratch
	if s == nil {
		return nil
	}
	if len(p.threads) == 0 {
		return ErrExited
	}
	maps, err := readMaps(p.via())
	if err != nil {
		return notThere(err)
	}
	insn := findSyscall(maps, p.Read)
	if insn == 0 {
		return fmt.Errorf("%w: the final memory layout has no vDSO and no program code with a system call", ErrNoGadget)
	}
	// No way back is needed: a frame dies with its tracer.
	c := Munmap(s.base, s.end-s.base)
	th := p.threads[0]
	if err := p.stubCall(th, insn, th.regs.Rsp, &c); err != nil {
		return err
	}
	if err := c.Errno(); err != nil {
		return err
	}
	p.scratch = nil
	p.claim(Range{})
	return nil
}

// findSyscall returns the address of a system call instruction.
func findSyscall(maps []mapping, read func(uint64, []byte) error) uint64 {
	for _, m := range gadgetSources(maps) {
		code := make([]byte, min(m.len(), 16<<20))
		if read(m.Start, code) != nil {
			continue
		}
		if i := bytes.Index(code, gadgetSyscallRet[:2]); i >= 0 {
			return m.Start + uint64(i)
		}
	}
	return 0
}

// Commit clears PTRACE_O_EXITKILL: from now on the death of the tracer lets
// the tasks run. It refuses before Release.
func (p *Process) Commit() error {
	err := p.do(func() error {
		if p.scratch != nil {
			return errors.New("tracer: Commit before Release")
		}
		opts := p.ptOpts &^ unix.PTRACE_O_EXITKILL
		for _, th := range p.threads {
			if err := ptraceOptions(th.Tid, opts); err != nil {
				return fmt.Errorf("task %d: %w", th.Tid, gone(err))
			}
		}
		p.ptOpts = opts
		return nil
	})
	if err != nil {
		return fmt.Errorf("commit frame %d: %w", p.Pid, err)
	}
	return nil
}
