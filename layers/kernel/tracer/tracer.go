// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Tracer owns one OS thread. Every ptrace request about a tracee must come
// from the thread that seized it (ptrace(2)), so all of them run there. One
// Tracer serves a process of any number of threads, and several processes;
// several Tracers work concurrently.
type Tracer struct {
	tid        int
	tasks      chan task
	done       chan struct{}
	once       sync.Once
	procs      map[*Process]struct{} // owned by the tracer's thread
	undertaker undertaker
	late       []lateThread // likewise: threads to detach when they stop
	robust     robustList   // likewise
	slow       slowness     // likewise
	// xstate is where a thread's XSAVE area is read to, likewise: it is larger than any
	// area, and ten thousand of them would be for the collector to take away.
	xstate [xstateRoom]byte
}

type task struct {
	fn   func() error
	done chan error
}

// New starts a tracer. Close ends it.
func New() *Tracer {
	quietStops()
	t := &Tracer{tasks: make(chan task), done: make(chan struct{}), procs: map[*Process]struct{}{}}
	ready := make(chan struct{})
	go onSpareThread(func() {
		t.tid = unix.Gettid()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) // else 50 us, which a batch does not take
		threads.Store(t.tid, t)
		growStack()
		close(ready)
		t.loop()
		threads.Delete(t.tid)
	})
	<-ready
	return t
}

// onSpareThread runs fn on an OS thread that ends with it, and the kernel detaches
// whatever it still traces; not on the process's first one, which the runtime lets
// never end and whose working directory is the process's (EndSlowly).
func onSpareThread(fn func()) {
	runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	started := make(chan struct{})
	go func() { // on another thread, while this one is locked
		close(started)
		onSpareThread(fn)
	}()
	<-started
	runtime.UnlockOSThread()
}

// growStack gives the goroutine the stack that a tracer comes to have, while there
// is nothing on it: the runtime would double it step by step, in the midst of
// calls, and look through all of them each time.
//
//go:noinline
func growStack() {
	var room [stackBytes / 2]byte
	runtime.KeepAlive(&room)
}

// timerSlack is by how much a sleep of the tracer's thread may last longer, in
// nanoseconds.
const timerSlack = 1000

// stackBytes is that stack's size.
const stackBytes = 32 << 10

func (t *Tracer) loop() {
	for {
		select {
		case k := <-t.tasks:
			k.done <- k.fn()
		case <-t.done:
			return
		}
	}
}

// Do runs fn on the tracer's thread and returns its error. Called on that
// thread (inside another Do) it runs fn at once, so a caller can wrap a loop
// over a thousand threads in one Do and save the switches between threads.
// fn must not wait for a goroutine that itself needs this tracer, but by WaitFor.
func (t *Tracer) Do(fn func() error) error {
	if unix.Gettid() == t.tid {
		return fn()
	}
	k := task{fn: fn, done: make(chan error, 1)}
	select {
	case t.tasks <- k:
		return <-k.done
	case <-t.done:
		return ErrClosed
	}
}

// Free reports whether the tracer has no process left, not even threads that it
// has yet to detach from: it can be used for another.
func (t *Tracer) Free() (free bool) {
	_ = t.Do(func() error {
		free = len(t.procs) == 0 && len(t.late) == 0
		return nil
	})
	return free
}

// Close leaves every process that is still attached (as Process.Leave does)
// and ends the tracer's OS thread. It may be called twice.
func (t *Tracer) Close() error {
	err := t.Do(func() error {
		var first error
		for p := range t.procs {
			if err := p.quit(); err != nil && first == nil {
				first = err
			}
		}
		return first
	})
	t.once.Do(func() { close(t.done) })
	if err == ErrClosed {
		return nil
	}
	return err
}
