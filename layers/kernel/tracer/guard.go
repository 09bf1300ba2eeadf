// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// A thread under a seccomp filter may be killed for the calls that it is made
// to make, and is not, as long as the tracer lives and has the filter
// suspended. So the loop must end with the tracer. It looks before each call at
// a word in memory that it shares with us: a robust futex (set_robust_list(2))
// that the tracer's thread holds. The kernel marks it when that thread ends
// (exit_mm_release in kernel/exit.c), which is well before it lets go of the
// tracees (exit_notify).
//
// What is left are the calls that map and unmap the scratch area itself, five in
// an event, and the two or three instructions between the look and the call: a
// tracer that dies between its request and the call, which takes microseconds, and
// milliseconds where the process has to wait for a processor.
type guard struct {
	tracer *Tracer
	entry  unsafe.Pointer // struct robust_list; the word is in the page behind it
	word   uint64         // its address in the process
	remote Range          // the page there
}

// robustHead is struct robust_list_head of include/uapi/linux/futex.h.
type robustHead struct {
	next    unsafe.Pointer
	offset  int64
	pending uintptr
}

// robustList is the tracer's: a head and guards, all outside of Go's heap,
// since the kernel reads them.
type robustList struct {
	head   *robustHead
	guards []*guard
}

// noGuard is the value of the word that a loop without a guard looks at: the
// first four bytes of the code page.
const noGuard = uint64('m' | 'i'<<8 | 'g'<<16 | '-'<<24)

// guardRegisters make the loop look at the process's guard.
func (p *Process) guardRegisters(r amd64.Registers) amd64.Registers {
	if g := p.guard; g != nil {
		r.R14, r.R15 = g.word, uint64(uint32(p.Tracer.tid))
	}
	return r
}

// filtered: some thread is under a filter, or the leader in strict mode.
func (p *Process) filtered() bool {
	if p.seccomp {
		return true
	}
	for _, th := range p.threads {
		if th.Tid == p.via() {
			continue
		}
		if ptrace(ptraceSeccompGetFilter, th.Tid, 0, 0) == nil {
			return true
		}
	}
	return false
}

// setGuard maps the page that is shared, at the end of the scratch area.
func (p *Process) setGuard() error {
	s, th := p.scratch, p.boot.thread
	at := Range{s.end, s.end + pageSize}
	c := Mmap(at.Start, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
	if err := p.stubCall(th, s.syscallRet, th.slot.frame, &c); err != nil {
		return err
	}
	if err := p.park(th); err != nil {
		return err
	}
	if c.Ret != int64(at.Start) {
		return mapError(&c)
	}
	s.end = at.End
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", p.via(), at.Start, at.End), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: open the page that it shares with the engine: %w", ErrScratch, err)
	}
	defer f.Close()
	g, err := p.Tracer.addGuard(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrScratch, err)
	}
	g.word, g.remote = at.Start, at
	p.guard = g
	return nil
}

// addGuard maps a guard's two pages here and has the kernel know of it.
func (t *Tracer) addGuard(shared *os.File) (*guard, error) {
	if err := t.useRobust(); err != nil {
		return nil, err
	}
	const rw, private = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	entry, err := unix.MmapPtr(-1, 0, nil, 2*pageSize, rw, private)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	if _, err := unix.MmapPtr(int(shared.Fd()), 0, unsafe.Add(entry, pageSize), pageSize, rw, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(fmt.Errorf("mmap: %w", err), unix.MunmapPtr(entry, 2*pageSize))
	}
	g := &guard{tracer: t, entry: entry}
	g.set(uint32(t.tid))
	t.robust.guards = append(t.robust.guards, g)
	t.robust.link()
	return g, nil
}

// useRobust replaces the list of the tracer's thread, which nobody else uses:
// Go has no robust mutexes.
func (t *Tracer) useRobust() error {
	if t.robust.head != nil {
		return nil
	}
	at, err := unix.MmapPtr(-1, 0, nil, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	h := (*robustHead)(at)
	h.offset = pageSize
	t.robust.head = h
	t.robust.link()
	if _, _, e := unix.RawSyscall(unix.SYS_SET_ROBUST_LIST, uintptr(at), unsafe.Sizeof(*h), 0); e != 0 {
		t.robust.head = nil
		return errors.Join(fmt.Errorf("set_robust_list: %w", e), unix.MunmapPtr(at, pageSize))
	}
	return nil
}

// link makes the list from its guards: a ring through the head.
func (l *robustList) link() {
	next := unsafe.Pointer(l.head)
	for _, g := range l.guards {
		*(*unsafe.Pointer)(g.entry) = next
		next = g.entry
	}
	l.head.next = next
}

func (g *guard) set(value uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Add(g.entry, pageSize)), value)
}

// drop ends the guard: a loop that is still under way ends, too.
func (g *guard) drop() {
	g.set(0)
	l := &g.tracer.robust
	kept := l.guards[:0]
	for _, o := range l.guards {
		if o != g {
			kept = append(kept, o)
		}
	}
	l.guards = kept
	l.link()
	_ = unix.MunmapPtr(g.entry, 2*pageSize)
}

// dropGuard is drop for a process that may have none.
func (p *Process) dropGuard() {
	if p.guard != nil {
		p.guard.drop()
		p.guard = nil
	}
}
