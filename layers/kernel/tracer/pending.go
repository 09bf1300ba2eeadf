// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/io-mig/mig/spec/arch/amd64"
)

var errTODO = errors.New("tracer: being written")

// Options of Attach.
type Options struct {
	// Pid of the thread group's leader, in the caller's pid namespace.
	Pid int
	// Thaw, if set, is called once, after every thread was seized and
	// interrupted and before the stops are awaited: tasks frozen by the v1
	// cgroup freezer cannot report a stop while frozen.
	Thaw func() error
	// Timeout bounds the wait for stops, 0 means DefaultTimeout. The
	// context's deadline holds as well.
	Timeout time.Duration
	// BatchTimeout bounds one batch (Run, RunEach), 0 means
	// DefaultBatchTimeout: a remote call that blocks must not hang the engine.
	BatchTimeout time.Duration
	// Avoid are ranges the scratch area must not touch (beside what is
	// mapped already): for a frame, the mappings of the image to come.
	Avoid []Range
}

// Range is a half-open range of addresses.
type Range struct{ Start, End uint64 }

// Process is a thread group whose threads are all stopped under ptrace by
// one Tracer. Its methods may be called from any goroutine, one at a time
// except Read and Write, which may overlap with each other. After Detach or
// Leave every method returns ErrClosed.
type Process struct {
	Pid    int // thread group id, host namespace
	NSPid  int // the same in the task's own (innermost) pid namespace
	Tracer *Tracer
}

// Thread is one stopped thread.
type Thread struct {
	Tid   int // host namespace
	NSTid int // innermost pid namespace
	// Stopped is the stop signal (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU) if
	// the thread was in a group-stop (state T) when it was attached, else 0.
	Stopped int
}

// Attach seizes every thread of a running process, stops them and returns
// when no thread is left out. On error nothing stays attached and the
// process runs on (or stays group-stopped) as before. Errors: ErrTraced,
// ErrVfork, ErrNoStop, Err32Bit, ErrZombieLeader, ErrSeccomp,
// ErrShadowStack, ErrExited, ErrBusy.
func (t *Tracer) Attach(ctx context.Context, o Options) (*Process, error) { return nil, errTODO }

// AttachFrame seizes the init of a created, not yet started container, to
// catch the exec of the frame program (FrameFile). If the tracer dies, the
// frame dies (PTRACE_O_EXITKILL) until Commit.
func (t *Tracer) AttachFrame(ctx context.Context, o Options) (*Process, error) { return nil, errTODO }

// WaitExec lets the frame run until it has execed the frame program and
// stops it there: from then on Run works. Signals on the way are passed on.
func (p *Process) WaitExec(ctx context.Context) error { return errTODO }

// Do runs fn on the tracer's thread: wrap loops over many threads in it.
func (p *Process) Do(fn func() error) error { return p.Tracer.Do(fn) }

// Threads returns the threads, leader first, then by Tid. The slice is the
// caller's, the threads are shared.
func (p *Process) Threads() []*Thread { return nil }

// Leader returns the thread whose Tid is Pid.
func (p *Process) Leader() *Thread { return nil }

// Registers returns the registers as they were at the stop, or as set by
// SetRegisters: never those of an injection in progress.
func (th *Thread) Registers() (amd64.Registers, error) { return amd64.Registers{}, errTODO }

// SetRegisters sets what the thread continues with after Detach/Release.
func (th *Thread) SetRegisters(r amd64.Registers) error { return errTODO }

// ResumeRegisters returns the registers with which another task can take
// over from this thread: Registers after the rseq and system call restart
// fix-ups (Restart). A checkpoint stores these. The RestartKind tells what
// was done.
func (th *Thread) ResumeRegisters() (amd64.Registers, RestartKind, error) {
	return amd64.Registers{}, 0, errTODO
}

// RestartKind says how an interrupted system call continues.
type RestartKind int

// XState returns the XSAVE area in the host's standard form (see
// HostXSave for its layout). The slice is the caller's.
func (th *Thread) XState() ([]byte, error) { return nil, errTODO }

// SetXState sets the XSAVE area, which must be in the host's layout.
func (th *Thread) SetXState(x []byte) error { return errTODO }

// HostXSave returns this host's XSAVE layout (CPUID leaf 0xD).
func HostXSave() (amd64.XLayout, error) { return amd64.XLayout{}, errTODO }

// SignalMask returns the blocked signals, bit n-1 for signal n, as they
// were at the stop or as set by SetSignalMask. Inside a system call with a
// temporary mask (sigsuspend, ppoll, epoll_pwait) it is the permanent one.
func (th *Thread) SignalMask() (uint64, error) { return 0, errTODO }

// SetSignalMask sets the mask the thread continues with.
func (th *Thread) SetSignalMask(m uint64) error { return errTODO }

// Rseq is a thread's restartable-sequences registration.
type Rseq struct {
	Addr      uint64 // 0: not registered
	Size      uint32
	Signature uint32
	Flags     uint32
}

// Rseq returns the registration as it was at the stop.
func (th *Thread) Rseq() (Rseq, error) { return Rseq{}, errTODO }

// RobustList returns head address and size, 0, 0 if there is none.
func (th *Thread) RobustList() (head, size uint64, err error) { return 0, 0, errTODO }

// Siginfo is the kernel's siginfo_t.
type Siginfo [128]byte

// PeekSiginfo returns the pending signals without taking them: those of
// the thread, or with shared those of the whole process. A signal whose
// delivery our stop interrupted counts as pending for the thread.
func (th *Thread) PeekSiginfo(shared bool) ([]Siginfo, error) { return nil, errTODO }

// Run makes calls in thread th, in order, and fills their Ret. A failing
// call does not end the batch: use Check. The error tells about the batch
// itself. Remote calls must not block, must not change what an injection
// relies on (the thread's own signal mask, the scratch mapping) and must not
// arm restart blocks (nanosleep, poll, futex wait).
func (p *Process) Run(th *Thread, calls []Call) error { return errTODO }

// Batch is a list of calls for one thread.
type Batch struct {
	Thread *Thread
	Calls  []Call
}

// RunEach runs several threads' batches in parallel. Each thread may appear
// once. It returns the first error after all batches have ended.
func (p *Process) RunEach(batches []Batch) error { return errTODO }

// Scratch returns the process's remote data area, mapped on first use.
func (p *Process) Scratch() (*Scratch, error) { return nil, errTODO }

// ScratchRanges returns the mappings that belong to injections (this one's
// and leftovers of dead predecessors): a checkpoint leaves them out.
func (p *Process) ScratchRanges() []Range { return nil }

// Scratch allocates parameter blocks in the tracee. Blocks live until
// Release or Detach.
type Scratch struct{}

// Alloc returns the remote address of n zeroed or stale bytes, 16-aligned.
func (s *Scratch) Alloc(n int) (uint64, error) { return 0, errTODO }

// Put allocates room for b and writes it there.
func (s *Scratch) Put(b []byte) (uint64, error) { return 0, errTODO }

// Mark returns a point to which Release frees again.
func (s *Scratch) Mark() int { return 0 }

// Release frees all blocks allocated since mark.
func (s *Scratch) Release(mark int) {}

// Read reads len(b) bytes at addr (process_vm_readv: as the task may).
func (p *Process) Read(addr uint64, b []byte) error { return errTODO }

// Write writes b at addr (process_vm_writev: fails on read-only memory).
func (p *Process) Write(addr uint64, b []byte) error { return errTODO }

// ReadForce and WriteForce go through /proc/PID/mem, past protections.
func (p *Process) ReadForce(addr uint64, b []byte) error { return errTODO }

// WriteForce writes b at addr whatever the page's protection.
func (p *Process) WriteForce(addr uint64, b []byte) error { return errTODO }

// Detach puts registers, masks and memory back and lets the process run.
// A source runs on as if nothing had happened, a group-stopped one stays
// stopped. For a frame call Release (and Commit) first.
func (p *Process) Detach() error { return errTODO }

// Leave is Detach for an error at any stage: it goes on after failures,
// puts back what can be put back and always lets the process run.
func (p *Process) Leave() error { return errTODO }

func (p *Process) leave() error { return errTODO }

// Kill kills the process and reaps its traced threads.
func (p *Process) Kill() error { return errTODO }

// AdoptThreads takes in threads that remote clone3 calls with CLONE_PTRACE
// made in this process, by their ids in the innermost pid namespace, in that
// order. They stop before their first instruction.
func (p *Process) AdoptThreads(nsTids []int) ([]*Thread, error) { return nil, errTODO }

// AdoptChild takes in a process that a remote clone3 with CLONE_PTRACE made;
// nsPid is its id in its parent's pid namespace. It lives on the same Tracer.
func (p *Process) AdoptChild(nsPid int) (*Process, error) { return nil, errTODO }

// Release is the last step of a frame before Commit and Detach: it unmaps
// the scratch area in the final memory layout and sets every thread's
// registers, xstate and mask.
func (p *Process) Release() error { return errTODO }

// Commit clears PTRACE_O_EXITKILL: from now on the death of the tracer lets
// the tasks run.
func (p *Process) Commit() error { return errTODO }

// FrameELF returns the frame program: a static ELF of two pages without
// libc, a loop around pause(2).
func FrameELF() []byte { return nil }

// FrameFile returns a sealed memfd (MFD_EXEC) with FrameELF, close-on-exec;
// the caller closes it.
func FrameFile() (*os.File, error) { return nil, errTODO }
