// SPDX-License-Identifier: Apache-2.0

// Package tracer stops processes and has them make system calls: ptrace and
// batched remote calls, the mechanism under every kernel subsystem.
//
// # Threads
//
// A Tracer owns one OS thread; everything about its tracees runs there
// (Tracer.Do). Several processes use several Tracers at once.
//
// # Kill-safe injection
//
// A source goes on as if nothing had happened, whatever the moment at which
// the engine dies. When a tracer dies the kernel lets its tracees run with
// the registers they have, so at every moment those registers must lead back
// to the program's own state. They do, by a signal frame: an injected thread
// always ends in rt_sigreturn from a frame that holds its registers, vector
// state and signal mask. It is what a signal handler would do.
//
//   - The first call (mmap of the scratch area) runs code of the program
//     itself: "syscall; ret" and then, as return address, its libc's
//     restorer "mov $15,%eax; syscall". No byte of code is changed. The frame
//     lies at the far end of the main stack, in memory no program relies on;
//     its bytes are put back. Only where no such code exists the stub is
//     written over the entry point, which never runs again, and put back
//     (TouchedCode).
//   - The scratch area holds a loop that makes an array of calls, and a frame
//     for each thread. Its page of code is never writable (PR_SET_MDWE).
//   - A batch ends with a signal the thread sends itself: one that the
//     program ignores (SIGWINCH as a rule). It stops a tracee and does nothing
//     otherwise. Without such a signal the thread stops at every call, about
//     ten times slower. SIGTRAP and its disposition are never touched.
//   - Entering, registers are set first and the mask second; leaving, the
//     mask first. Other signals are blocked meanwhile and stay queued; one
//     that was just being delivered goes back to the queue.
//   - What a dead tracer left mapped is recognised by its successor, reported
//     by ScratchRanges, and unmapped when it is old enough.
//
// Processes that have one address space (CLONE_VM) have an area each: see Space.
//
// What remains visible after the engine's death: a relative time-out starts
// anew; a call that does not restart (epoll_wait) may return EINTR if the
// death falls between the stop and the next instruction of the engine; so does one
// with a time-out that was interrupted before and whose code does not tell which it
// is (before); calls
// left of the batch are made. They are not in a process with seccomp filters,
// which apply again then (guard). What can still hit that: a filter that kills for
// rt_sigreturn; one that kills for mmap or munmap, if the thread then waits for a
// processor for longer than the tracer lingers; and any that kills for what is called,
// where no signal can end a batch, or the thread has not registered for restartable
// sequences and loses its processor at the instruction before the call, or the kernel
// is older than 6.15 and a hypervisor takes the processor away there (EndSlowly).
//
// # Restart
//
// After Detach the kernel restarts interrupted calls itself. For those that
// would return EINTR merely because of our stop, Detach rewinds the thread,
// unless a handler is about to run. ResumeRegisters does the same, and more,
// for a task that another kernel will continue (Restart).
//
// # Frames
//
// At the destination the tracer turns a frame, a container's init that
// execed FrameFile, into the image's tasks: AttachFrame, WaitExec, Run,
// AdoptThreads, AdoptChild, Release, Commit, Detach. Until Commit it dies
// with its tracer, so nothing there needs a way back.
package tracer
