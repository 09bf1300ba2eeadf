// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Space is an address space that several processes have in common: clone(2) with
// CLONE_VM makes such without making a thread. Each has a scratch area of its own in
// it. What they must not do at the same time is to use the dead end of a stack, and
// what each must know of the others is where their areas and stacks are.
//
// All that have it must be stopped before the first of them makes a remote call, and
// must have withdrawn before one of them runs on: nobody knows the stack of one that
// runs.
type Space struct {
	booting sync.Mutex // while the first or the last remote call of one is made

	mu      sync.Mutex
	members map[*Process]*tenant
}

// tenant is what the others know of a process.
type tenant struct {
	// area is its scratch area, also before it is mapped and while it grows.
	area Range
	sps  []uint64 // the stack pointers of its threads
}

// Join tells that the process, which is stopped and has made no remote call yet, has
// its address space in common with others: all of them join the same one.
func (p *Process) Join(s *Space) error {
	return p.do(func() error {
		if p.scratch != nil || p.space != nil {
			return fmt.Errorf("tracer: process %d: %w", p.Pid, errors.New("Join came after the first remote call"))
		}
		p.join(s)
		return nil
	})
}

func (p *Process) join(s *Space) {
	me := &tenant{}
	for _, th := range p.threads {
		me.sps = append(me.sps, th.regs.Rsp)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.members == nil {
		s.members = map[*Process]*tenant{}
	}
	s.members[p], p.space = me, s
}

// quitSpace forgets a process that is let go or killed.
func (p *Process) quitSpace() {
	if s := p.space; s != nil {
		s.mu.Lock()
		delete(s.members, p)
		s.mu.Unlock()
		p.space = nil
	}
}

// lockBoot waits until no other process of the space makes its first or last call.
func (p *Process) lockBoot() (unlock func()) {
	if p.space == nil {
		return func() {}
	}
	p.space.booting.Lock()
	return p.space.booting.Unlock
}

// claim says where the scratch area is or is about to be.
func (p *Process) claim(area Range) {
	if s := p.space; s != nil {
		s.mu.Lock()
		s.members[p].area = area
		s.mu.Unlock()
	}
}

// stackPointers are those of all threads that use the address space.
func (p *Process) stackPointers() (sps []uint64) {
	for _, th := range p.threads {
		sps = append(sps, th.regs.Rsp)
	}
	p.eachMate(func(m *tenant) { sps = append(sps, m.sps...) })
	return sps
}

// matesAreas are the scratch areas of the others.
func (p *Process) matesAreas() (areas []Range) {
	p.eachMate(func(m *tenant) {
		if m.area.End > m.area.Start {
			areas = append(areas, m.area)
		}
	})
	return areas
}

func (p *Process) eachMate(fn func(*tenant)) {
	s := p.space
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for o, m := range s.members {
		if o != p {
			fn(m)
		}
	}
}

// shareSpace gives a process that a frame has just made with CLONE_VM a scratch area
// of its own, in the address space of both. The maker maps it: the new one has nothing
// yet with which it could make a call.
func (p *Process) shareSpace(c *Process) error {
	if _, err := p.ensureScratch(); err != nil {
		return err
	}
	if p.space == nil {
		p.join(&Space{})
		p.claim(Range{p.scratch.base, p.scratch.end})
	}
	c.join(p.space)
	maps, err := readMaps(p.via())
	if err != nil {
		return notThere(err)
	}
	base, err := c.scratchBase(mapRanges(maps))
	if err != nil {
		return err
	}
	start := base + pageSize
	c.claim(Range{base, start + scratchFirst})
	calls := []Call{
		Mmap(base, pageSize, unix.PROT_READ|unix.PROT_EXEC, scratchFlags, -1, 0),
		Mmap(start, scratchFirst, unix.PROT_READ|unix.PROT_WRITE, scratchFlags, -1, 0),
	}
	if err := p.run(p.threads[0], calls); err != nil {
		return err
	}
	for i := range calls {
		if calls[i].Ret != int64(calls[i].Args[0]) {
			return mapError(&calls[i])
		}
	}
	code := codePage(base, monotonic(), 0)
	if err := c.WriteForce(base, code); err != nil {
		return err
	}
	c.scratch = &Scratch{
		p: c, base: base, end: start + scratchFirst,
		syscallRet: base + scratchStub,
		restorer:   base + scratchStub + stubRestorer,
	}
	half := start + scratchFirst/2
	c.scratch.internal.extents = []Range{{start, half}}
	c.scratch.user.extents = []Range{{half, c.scratch.end}}
	return nil
}
