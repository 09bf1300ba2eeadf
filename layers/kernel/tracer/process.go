// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/spec/arch/amd64"
)

// Defaults of Options.
const (
	DefaultTimeout      = 5 * time.Second
	DefaultBatchTimeout = 10 * time.Second
)

// Options of Attach and AttachFrame.
type Options struct {
	// Pid of the thread group's leader, in the caller's pid namespace.
	Pid int
	// Thaw, if set, is called once, after every thread was seized and
	// interrupted and before the stops are awaited: tasks frozen by the v1
	// cgroup freezer cannot report a stop while frozen. It runs on the
	// tracer's thread.
	Thaw func() error
	// Timeout bounds the wait for stops, 0 means DefaultTimeout. The
	// context's deadline holds as well.
	Timeout time.Duration
	// BatchTimeout bounds one batch (Run, RunEach), 0 means
	// DefaultBatchTimeout: a remote call that blocks must not hang the engine.
	BatchTimeout time.Duration
	// Gadgets, if set, is what earlier stops have found, of this process or of others,
	// and takes what this one finds. It saves a search through the program's code.
	Gadgets *Gadgets
	// Avoid are ranges the scratch area must not touch (beside what is
	// mapped already): for a frame, the mappings of the image to come.
	Avoid []Range
}

// Range is a half-open range of addresses.
type Range struct{ Start, End uint64 }

// Process is a thread group whose threads are all stopped under ptrace by
// one Tracer. Its methods may be called from any goroutine: all but Read and
// Write run on the tracer's thread, one at a time. After Detach, Leave or
// Kill they return ErrClosed.
type Process struct {
	Pid    int // thread group id, caller's pid namespace
	NSPid  int // the same in the task's own (innermost) pid namespace
	Tracer *Tracer
	// StoppedAt is CLOCK_MONOTONIC of the host, in nanoseconds, when the last
	// thread of a source had stopped; 0 for a frame.
	StoppedAt int64

	// All below belongs to the tracer's thread.
	opts    Options
	ptOpts  int  // ptrace options in force
	frame   bool // ours: dies with the tracer, needs no way back
	closed  bool
	threads []*Thread // leader first, then ascending
	memFD   int       // /proc/PID/mem, -1 if not open
	pidns   pidNamespace
	// nextBurial is when buryDead looks again.
	nextBurial time.Time
	caught     uint64 // signals with handlers
	ignored    uint64
	stopSig    int // ends a batch; 0: none, stop at every call
	// stopSigBlocked: some thread blocks stopSig, so it may be wanted.
	stopSigBlocked bool
	avoidSigs      uint64 // for frames: signals that may be pending
	boot           boot
	scratch        *Scratch
	leftovers      []leftover
	// leaderless: the leader has ended and other threads live on.
	leaderless bool
	viaTid     atomic.Int32 // see via, 0 for Pid
	// seccomp: the leader is under a filter or in strict mode.
	seccomp bool
	guard   *guard // for threads under filters
	space   *Space // that it has in common with other processes, nil for none
	// restartHaters: what hatesRestart has found, by the sizes of filters.
	restartHaters map[string]bool
}

// Thread is one stopped thread of a Process.
type Thread struct {
	Tid   int // caller's pid namespace
	NSTid int // innermost pid namespace
	// Stopped is the stop signal (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU) if the
	// thread was in a group-stop (state T) when it was attached, else 0.
	Stopped int

	p    *Process
	held int // signal in delivery when it stopped; passed on with the first resume
	info Siginfo

	// What the thread continues with after Detach.
	regs   amd64.Registers
	mask   uint64
	xstate []byte // nil until read
	rseqCS []byte // struct rseq_cs it is in, read before the first injection
	rseq   Rseq   // read with it

	// What it has now.
	entered  bool   // runs or is parked in injected code
	curMask  uint64 // valid if entered
	running  bool   // resumed and not seen to stop
	gone     bool   // exited
	sequence bool   // its rseq_cs is the loop's
	hidden   bool   // has regs with the stop's EINTR undone (hideStop)
	slot     slot
	prepared bool // slot holds a current frame
}

// Do runs fn on the tracer's thread: wrap loops over many threads in it.
func (p *Process) Do(fn func() error) error { return p.Tracer.Do(fn) }

// do is Do for methods of a process that is still attached.
func (p *Process) do(fn func() error) error {
	return p.Tracer.Do(func() error {
		if p.closed {
			return ErrClosed
		}
		return fn()
	})
}

// Threads returns the live threads, leader first, then by Tid. The slice is
// the caller's, the threads are shared.
func (p *Process) Threads() []*Thread {
	var out []*Thread
	_ = p.Do(func() error { out = slices.Clone(p.threads); return nil })
	return out
}

// Leader returns the thread whose Tid is Pid or, where that has ended before
// others, one that lives; nil if there is none.
func (p *Process) Leader() *Thread {
	var leader *Thread
	_ = p.Do(func() error {
		if leader = p.find(p.Pid); leader == nil && p.leaderless && len(p.threads) > 0 {
			leader = p.threads[0]
		}
		return nil
	})
	return leader
}

// via is the task by which the kernel shows what belongs to the process: one
// that has ended has no memory any more.
func (p *Process) via() int {
	if tid := p.viaTid.Load(); tid != 0 {
		return int(tid)
	}
	return p.Pid
}

// withoutLeader notes whether the leader is among the threads that are left.
func (p *Process) withoutLeader() {
	p.leaderless = len(p.threads) > 0 && p.find(p.Pid) == nil
	p.viaTid.Store(0)
	if p.leaderless {
		p.viaTid.Store(int32(p.threads[0].Tid))
	}
}

func (p *Process) find(tid int) *Thread {
	for _, th := range p.threads {
		if th.Tid == tid {
			return th
		}
	}
	return nil
}

// drop forgets a thread that is gone and takes its exit status if that is
// ours to take.
func (p *Process) drop(th *Thread) {
	th.gone, th.running = true, false
	p.threads = slices.DeleteFunc(p.threads, func(o *Thread) bool { return o == th })
	if p.leaderless {
		p.withoutLeader()
	}
	if th.Tid != p.Pid || !p.isOurChild() {
		reap(th.Tid)
	}
}

// dropDead drops all threads that have ended; ours is isOurChild.
func (p *Process) dropDead(ours bool) {
	p.threads = slices.DeleteFunc(p.threads, func(th *Thread) bool {
		if _, err := peekStop(th.Tid); !errors.Is(err, ErrExited) {
			return false
		}
		th.gone, th.running = true, false
		if th.Tid != p.Pid || !ours {
			reap(th.Tid)
		}
		return true
	})
}

// isOurChild: then the exit status is for another thread of this program.
func (p *Process) isOurChild() bool {
	st, err := readStatus(p.Pid, p.Pid)
	return err == nil && st.PPid == unix.Getpid()
}

func (p *Process) sortThreads() {
	slices.SortFunc(p.threads, func(a, b *Thread) int {
		switch {
		case a.Tid == b.Tid:
			return 0
		case a.Tid == p.Pid:
			return -1
		case b.Tid == p.Pid:
			return 1
		}
		return a.Tid - b.Tid
	})
}

func (p *Process) batchDeadline() time.Time {
	d := p.opts.BatchTimeout
	if d == 0 {
		d = DefaultBatchTimeout
	}
	return time.Now().Add(d)
}
