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
// From the look to the call it is a restartable sequence (rseq(2)), if the thread has
// registered for such, as glibc's have: one that loses its processor in between looks
// again. Without such a sequence the thread dies if it is off its processor there just
// then. What is left is its way into the kernel, some ten nanoseconds, against that
// of the tracer's thread from the mark to letting go, some fifty microseconds. That was
// not enough where a hypervisor takes a processor away: one of some thousand engines
// left a dead program behind, always by a call of the loop. So the tracer's thread waits
// for all processors in between (EndSlowly, Linux 6.15).
//
// The word is in the page with the loop. So nobody looks before the call that maps
// that page and before the one that unmaps it at the end: see linger.
type guard struct {
	tracer *Tracer
	entry  unsafe.Pointer // struct robust_list; the word is in the page behind it
	word   uint64         // its address in the process
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

// guardRegisters make the loop look at the process's guard, and the way from the
// look to the call a restartable sequence where the thread has registered for such.
func (th *Thread) guardRegisters(r amd64.Registers) amd64.Registers {
	if g := th.p.guard; g != nil {
		r.R14, r.R15 = g.word, uint64(uint32(th.p.Tracer.tid))
		if th.rseq.Addr != 0 && th.rseq.Signature == th.p.scratch.signature {
			r.Rbp, th.sequence = th.rseq.Addr+rseqCSField, true
		}
	}
	return r
}

// linger keeps the tracer's thread alive for some more milliseconds, whoever kills it:
// a wait for the kernel's readers that nothing interrupts. Meanwhile a thread that was
// let go to make a deadly call without a guard gets to where its filter, suspended, is
// passed. It is a grace period of RCU, 8 to 33 ms where that was measured with ten
// busy programs for each processor; a thread that waits for longer may die.
func linger() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0)
}

// endSequence takes back what the loop has told the kernel to look at whenever it
// has interrupted the thread.
func (th *Thread) endSequence() error {
	if !th.sequence {
		return nil
	}
	th.sequence = false
	return th.p.Write(th.rseq.Addr+rseqCSField, make([]byte, 8))
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

// setGuard fills the code page of the scratch area, which is shared memory then and
// only writable here, and has it hold the word.
func (p *Process) setGuard(base uint64, code []byte) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/map_files/%x-%x", p.via(), base, base+pageSize), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: open the page that it shares with the engine: %w", ErrScratch, err)
	}
	defer f.Close()
	g, err := p.Tracer.addGuard(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrScratch, err)
	}
	copy(g.page(), code[:scratchGuard]) // first: a page with anything else in it is not recognised
	copy(g.page()[scratchGuard:], code[scratchGuard:])
	g.set(uint32(p.Tracer.tid))
	g.word = base + scratchGuard
	p.guard = g
	return nil
}

// addGuard maps a guard's two pages here and has the kernel know of it.
func (t *Tracer) addGuard(shared *os.File) (*guard, error) {
	if err := t.useRobust(); err != nil {
		return nil, err
	}
	_ = t.EndSlowly() // it has said why not, and most threads live all the same
	const rw, private = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	entry, err := unix.MmapPtr(-1, 0, nil, 2*pageSize, rw, private)
	if err != nil {
		return nil, fmt.Errorf("mmap: %w", err)
	}
	if _, err := unix.MmapPtr(int(shared.Fd()), 0, unsafe.Add(entry, pageSize), pageSize, rw, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(fmt.Errorf("mmap: %w", err), unix.MunmapPtr(entry, 2*pageSize))
	}
	g := &guard{tracer: t, entry: entry}
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
	h.offset = pageSize + scratchGuard
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

// page is the page that is shared with the process.
func (g *guard) page() []byte { return unsafe.Slice((*byte)(unsafe.Add(g.entry, pageSize)), pageSize) }

func (g *guard) set(value uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&g.page()[scratchGuard])), value)
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
