// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// boot is how the first and the last remote call are made, when there is no
// scratch area: by code of the program itself, with a signal frame in dead
// stack memory. See the package comment.
type boot struct {
	thread  *Thread
	code    gadgets
	frame   uint64
	calls   uint64 // room for a call by the loop, behind the frame
	saved   []byte // what was at frame and behind it
	entry   uint64 // where stubCode was poked, 0 if code are real gadgets
	entrySv []byte
}

// ensureScratch maps the scratch area and leaves the thread that made it
// parked there.
func (p *Process) ensureScratch() (*Scratch, error) {
	if p.scratch != nil {
		return p.scratch, nil
	}
	if len(p.threads) == 0 {
		return nil, ErrExited
	}
	defer p.lockBoot()()
	maps, err := readMaps(p.via())
	if err != nil {
		return nil, notThere(err)
	}
	if err := p.bootEnter(maps, p.threads[0]); err != nil {
		return nil, p.bootFail(err)
	}
	s, err := p.mapScratch(maps)
	if err != nil {
		return nil, p.bootFail(err)
	}
	th := p.boot.thread
	var out gather
	if err := errors.Join(p.prepare(th, &out), p.writeAll(&out)); err != nil {
		return nil, err
	}
	if err := p.park(th); err != nil {
		return nil, err
	}
	return s, p.bootErase()
}

// bootEnter writes the frame and finds the code for calls of thread th.
func (p *Process) bootEnter(maps []mapping, th *Thread) error {
	b := boot{thread: th, code: p.findGadgets(maps)}
	frame, err := p.encodeFrame(th)
	if err != nil {
		return err
	}
	sps := p.stackPointers()
	need := sigframeSize(frame.xsize()) + bootCalls
	at, ok := deadStack(maps, sps, need)
	if !ok {
		if maps, err = p.growStack(maps, need); err != nil {
			return err
		}
		at, ok = deadStack(maps, sps, need)
	}
	if !ok {
		return fmt.Errorf("process %d: %w: its stacks are almost full or not recognisable", p.Pid, ErrNoStackRoom)
	}
	b.frame = at
	p.boot = b
	if !b.code.complete() {
		if err := p.pokeEntry(maps); err != nil {
			return err
		}
	}
	return p.bootFrame(frame)
}

// growStack has the main stack grow by some pages more than need, as a push
// would: it has never been deeper than where a thread stands now, and what was
// never touched is not mapped. An access by /proc/PID/mem grows it as well (mm/memory.c,
// __access_remote_vm), where its limit and its neighbours allow.
func (p *Process) growStack(maps []mapping, need int) ([]mapping, error) {
	i := slices.IndexFunc(maps, func(m mapping) bool { return m.Name == "[stack]" })
	if i < 0 {
		return maps, nil
	}
	below := (uint64(need)+pageSize-1)&^(pageSize-1) + 3*pageSize
	if p.ReadForce(maps[i].Start-below, make([]byte, 1)) != nil {
		return maps, nil
	}
	return readMaps(p.Pid)
}

// bootCalls is the room behind the frame for the calls of a loop, in bytes.
const bootCalls = 3 * CallSize

// bootFrame writes the frame, keeping what was there.
func (p *Process) bootFrame(f frameData) error {
	b := f.encode(p.boot.frame, p.boot.code.restorer)
	p.boot.calls = (p.boot.frame + uint64(len(b)) + CallSize - 1) &^ (CallSize - 1)
	b = append(b, make([]byte, p.boot.calls+2*CallSize-p.boot.frame-uint64(len(b)))...)
	p.boot.saved = make([]byte, len(b))
	if err := p.Read(p.boot.frame, p.boot.saved); err != nil {
		p.boot.saved = nil
		return err
	}
	return p.Write(p.boot.frame, b)
}

// bootErase puts back the memory the first calls used, unless the thread is still on
// its way through it, for example frozen by a cgroup: it goes back through the frame
// when the tracer has gone.
func (p *Process) bootErase() error {
	if th := p.boot.thread; th != nil && !th.gone && th.running {
		return nil
	}
	var err error
	if p.boot.saved != nil {
		err = p.Write(p.boot.frame, p.boot.saved)
		p.boot.saved = nil
	}
	if p.boot.entrySv != nil {
		if e := p.WriteForce(p.boot.entry, p.boot.entrySv); e != nil && err == nil {
			err = e
		}
		p.boot.entrySv = nil
	}
	return err
}

// bootFail gives the thread its own state back after a failed boot.
func (p *Process) bootFail(cause error) error {
	if th := p.boot.thread; th != nil && !th.gone && !th.running && th.entered {
		if err := p.finish(th); err != nil {
			return cause // dying: its memory does not matter any more
		}
	}
	_ = p.bootErase()
	return cause
}

// pokeEntry is for programs in which no gadget was found: the stub goes to
// the entry point, code that has run once and never runs again.
func (p *Process) pokeEntry(maps []mapping) error {
	at := entryPoint(p.via())
	for _, m := range maps {
		if at < m.Start || at+uint64(len(stubCode)) > m.End || !m.Exec || m.Write || m.Shared {
			continue
		}
		for _, th := range p.threads {
			if th.regs.Rip-at < uint64(len(stubCode)) {
				return fmt.Errorf("process %d: %w: task %d runs at the entry point", p.Pid, ErrNoGadget, th.Tid)
			}
		}
		old := make([]byte, len(stubCode))
		if err := p.Read(at, old); err != nil {
			return err
		}
		if bytes.Equal(old, stubCode) { // a predecessor died here: ask the file
			if err := readMapped(p.via(), &m, at, old); err != nil {
				return err
			}
		}
		p.boot.entry, p.boot.entrySv = at, old
		p.boot.code = gadgets{syscallRet: at, restorer: at + stubRestorer}
		return p.WriteForce(at, stubCode)
	}
	return fmt.Errorf("process %d: %w: no libc-like code is mapped and the entry point %#x is not mapped executable", p.Pid, ErrNoGadget, at)
}

// readMapped reads the file behind a mapping, not the memory.
func readMapped(pid int, m *mapping, at uint64, b []byte) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.Start, m.End))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, int64(m.Offset+at-m.Start))
	return err
}

// TouchedCode returns the range of program code that was overwritten and put
// back (the fallback without gadgets), which makes its page anonymous; a
// checkpoint may treat it as clean. Empty, as a rule.
func (p *Process) TouchedCode() Range {
	var r Range
	_ = p.Do(func() error {
		if p.boot.entry != 0 {
			r = Range{p.boot.entry, p.boot.entry + uint64(len(stubCode))}
		}
		return nil
	})
	return r
}

// mapScratch makes the first calls.
func (p *Process) mapScratch(maps []mapping) (*Scratch, error) {
	call := p.bootCall
	guarded := !p.frame && p.filtered()
	if guarded {
		call = p.bootLoopCall
	} else if err := p.clearLeftovers(call); err != nil {
		return nil, err
	}
	base, err := p.scratchBase(mapRanges(maps))
	if err != nil {
		return nil, err
	}
	slots := (uint64(len(p.threads))*p.slotSize() + scratchFirst/2 + pageSize - 1) &^ (pageSize - 1)
	data := slots + scratchFirst/2
	start := base + pageSize
	p.claim(Range{base, start + data})
	if err := p.mapCode(base, guarded); err != nil {
		return nil, err
	}
	area := Mmap(start, data, unix.PROT_READ|unix.PROT_WRITE, scratchFlags, -1, 0)
	if err = call(&area); err == nil && area.Ret != int64(start) {
		err = mapError(&area)
	}
	if err == nil && guarded {
		err = p.clearLeftovers(call)
	}
	if err != nil {
		undo := Munmap(base, pageSize+data)
		_ = p.bootCall(&undo)
		p.dropGuard()
		p.scratch = nil
		return nil, err
	}
	s := p.scratch
	s.end = start + data
	s.internal.extents = []Range{{start, start + slots}}
	s.user.extents = []Range{{start + slots, s.end}}
	return s, nil
}

// bootCall makes a call by code of the program.
func (p *Process) bootCall(c *Call) error {
	return p.stubCall(p.boot.thread, p.boot.code.syscallRet, p.boot.frame, c)
}

// bootLoopCall makes a call by the loop in the code page, when that is all there is.
func (p *Process) bootLoopCall(c *Call) error {
	return p.loopCall(p.boot.thread, p.boot.calls, p.boot.frame, c)
}

// scratchBase is where the scratch area is to lie.
func (p *Process) scratchBase(used []Range) (base uint64, err error) {
	ok := false
	if p.frame {
		base, ok = pickHoleFrom(frameHole(), used, p.opts.Avoid, scratchMaxLen)
	}
	if !ok {
		base, ok = pickHole(used, p.opts.Avoid, scratchMaxLen)
	}
	if !ok {
		err = fmt.Errorf("%w: no hole of %d bytes in the address space", ErrScratch, scratchMaxLen)
	}
	return base, err
}

// mapCode maps and fills the code page, which is the beginning of a Scratch. It is
// never writable and executable at once: PR_SET_MDWE forbids that.
func (p *Process) mapCode(base uint64, guarded bool) error {
	flags := scratchFlags
	if guarded {
		flags += unix.MAP_SHARED - unix.MAP_PRIVATE
	}
	c := Mmap(base, pageSize, unix.PROT_READ|unix.PROT_EXEC, flags, -1, 0)
	if err := p.bootCall(&c); err != nil {
		return err
	}
	if c.Ret != int64(base) {
		return mapError(&c)
	}
	s := &Scratch{
		p: p, base: base, end: base + pageSize,
		syscallRet: base + scratchStub,
		restorer:   base + scratchStub + stubRestorer,
		signature:  p.boot.thread.rseq.Signature,
	}
	code := codePage(base, monotonic(), s.signature)
	var err error
	if guarded {
		err = p.setGuard(base, code)
	} else {
		err = p.WriteForce(base, code)
	}
	if err != nil {
		undo := Munmap(base, pageSize)
		_ = p.bootCall(&undo)
		return err
	}
	p.scratch = s
	return nil
}

// unmapScratch makes the last call, in a thread whose own state is put back
// right after it. All other threads must have theirs already.
func (p *Process) unmapScratch() error {
	s := p.scratch
	if s == nil {
		return nil
	}
	defer p.lockBoot()()
	th := p.boot.thread
	if th.gone {
		if len(p.threads) == 0 {
			return ErrExited
		}
		th = p.threads[0]
		p.boot.thread = th
	}
	frame, err := p.encodeFrame(th)
	if err == nil && p.boot.entry != 0 {
		var maps []mapping
		if maps, err = readMaps(p.via()); err == nil {
			err = p.pokeEntry(maps)
		}
	}
	if err == nil {
		err = p.bootFrame(frame)
	}
	c := Munmap(s.base, s.end-s.base)
	if err == nil {
		err = p.bootCall(&c)
	}
	if err == nil {
		err = c.Errno()
	}
	if err == nil {
		p.scratch = nil
		p.claim(Range{})
	}
	if e := p.finish(th); err == nil {
		err = e
	}
	if e := p.bootErase(); err == nil {
		err = e
	}
	return err
}
