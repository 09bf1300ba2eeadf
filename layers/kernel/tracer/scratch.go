// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Scratch allocates parameter blocks for remote calls in the tracee's
// scratch area, which grows on demand. Blocks live until Release of a mark
// made before them, Detach or Leave. Use Process.Read and Write on them.
type Scratch struct {
	p          *Process
	base, end  uint64 // code page and data, one stretch of addresses
	internal   arena  // frames and call arrays
	user       arena
	restorer   uint64 // rt_sigreturn in the code page
	syscallRet uint64 // "syscall; ret" in the code page
	signature  uint32 // of restartable sequences, in the code page
}

const (
	scratchFirst = 256 << 10 // bytes of data mapped at first
	scratchStep  = 1 << 20   // and added at least when it runs out
	maxCalls     = 1024      // calls per round trip; more are split
	slotCalls    = 33        // calls a thread's slot holds at first
)

// arena is a bump allocator over extents.
type arena struct {
	extents []Range
	at      int // current extent
	used    uint64
}

func (a *arena) take(n uint64) (uint64, bool) {
	n = (n + frameAlign - 1) &^ (frameAlign - 1)
	for ; a.at < len(a.extents); a.at, a.used = a.at+1, 0 {
		if e := a.extents[a.at]; e.End-e.Start-a.used >= n {
			addr := e.Start + a.used
			a.used += n
			return addr, true
		}
	}
	return 0, false
}

// Mark is a point in the sequence of allocations.
type Mark struct {
	at   int
	used uint64
}

func (a *arena) mark() Mark     { return Mark{a.at, a.used} }
func (a *arena) release(m Mark) { a.at, a.used = m.at, m.used }

// Scratch returns the process's remote data area; it is mapped on first use.
func (p *Process) Scratch() (s *Scratch, err error) {
	err = p.do(func() (err error) { s, err = p.ensureScratch(); return err })
	return s, err
}

// Alloc returns the remote address of n bytes, 64-aligned, content undefined.
func (s *Scratch) Alloc(n int) (addr uint64, err error) {
	err = s.p.do(func() (err error) { addr, err = s.alloc(n); return err })
	return addr, err
}

// Put allocates room for b and writes it there.
func (s *Scratch) Put(b []byte) (uint64, error) {
	addr, err := s.Alloc(len(b))
	if err != nil || len(b) == 0 {
		return addr, err
	}
	return addr, s.p.Write(addr, b)
}

// Mark returns a point to which Release goes back.
func (s *Scratch) Mark() (m Mark) {
	_ = s.p.Do(func() error { m = s.user.mark(); return nil })
	return m
}

// Release frees all blocks allocated since m.
func (s *Scratch) Release(m Mark) {
	_ = s.p.Do(func() error { s.user.release(m); return nil })
}

func (s *Scratch) alloc(n int) (uint64, error) { return s.from(&s.user, n) }

func (s *Scratch) from(a *arena, n int) (uint64, error) {
	if n < 0 || n > scratchMaxLen/2 {
		return 0, fmt.Errorf("%w: a block of %d bytes", ErrScratch, n)
	}
	if addr, ok := a.take(uint64(n)); ok {
		return addr, nil
	}
	if err := s.grow(a, uint64(n)); err != nil {
		return 0, err
	}
	addr, _ := a.take(uint64(n))
	return addr, nil
}

// grow maps more at the end of the area. It runs in the thread that made it, whose
// slot has always room for a call: the area's call arrays may be what has run out.
func (s *Scratch) grow(a *arena, n uint64) error {
	size := max((n+2*frameAlign+pageSize-1)&^(pageSize-1), scratchStep)
	if s.end+size > s.base+scratchMaxLen {
		return fmt.Errorf("%w: more than %d bytes", ErrScratch, scratchMaxLen)
	}
	th := s.p.boot.thread
	if th.gone {
		return fmt.Errorf("%w: its thread is gone: %w", ErrScratch, ErrExited)
	}
	s.p.claim(Range{s.base, s.end + size})
	c := Mmap(s.end, size, unix.PROT_READ|unix.PROT_WRITE, scratchFlags, -1, 0)
	if err := s.p.loopCall(th, th.slot.calls, th.slot.frame, &c); err != nil {
		return err
	}
	if err := s.p.park(th); err != nil {
		return err
	}
	if c.Ret != int64(s.end) {
		return mapError(&c)
	}
	a.extents = append(a.extents, Range{s.end, s.end + size})
	s.end += size
	return nil
}

const scratchFlags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE | unix.MAP_FIXED_NOREPLACE

func mapError(c *Call) error {
	err := c.Errno()
	if errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%w: mmap of %d bytes: %w (RLIMIT_AS or vm.max_map_count of the task is exhausted)", ErrScratch, c.Args[1], err)
	}
	return fmt.Errorf("%w: mmap of %d bytes at %#x returned %#x: %w", ErrScratch, c.Args[1], c.Args[0], c.Ret, err)
}
