// SPDX-License-Identifier: Apache-2.0

// Package timer exports and imports a process's timers: those of setitimer(2)
// (alarm(2) is one of them) and of timer_create(2), with their ids.
//
// What is carried is the time that is left: while a process is an image no time
// passes for its timers. That is right for relative times. Whether a timer of
// CLOCK_REALTIME was set to an absolute time (TIMER_ABSTIME) the kernel does
// not tell, so such a timer, too, fires later by the time that the process was
// away. CLOCK_MONOTONIC and CLOCK_BOOTTIME go on by the subsystem clock; where they
// cannot, what is left still is right. Those of a process's or
// thread's CPU time begin at zero in its copy, and timers on them are armed
// with what was left.
//
// Sources: timer_create(2), timer_settime(2), setitimer(2), sigevent(7),
// /proc/PID/timers in proc(5), kernel/time/posix-timers.c.
package timer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// Name is what the subsystem's records are called by.
const Name = "timer"

// Kinds of records.
const (
	// KindInterval: state.IntervalTimers, entity 0.
	KindInterval = 1
	// KindPosix: state.PosixTimers, entity is the first one's id.
	KindPosix = 2
)

const (
	timersPerRecord = 1024
	// maxTimers bounds the timers of one process in an image. The kernel's own
	// bound is RLIMIT_SIGPENDING.
	maxTimers = 1 << 20
	// timersPerBatch bounds the calls and parameters of one remote batch.
	timersPerBatch = 512
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's timers are invalid")

// Subsystem is one event's timers.
type Subsystem struct {
	env    target.Env
	timers atomic.Uint64
	// searchIDs finds timer ids by trial, as kernels before 6.15 need it.
	searchIDs bool

	mu   sync.Mutex
	kept map[record.ProcessID]*saved
}

// saved is one process on its way in.
type saved struct {
	interval []*state.IntervalTimer
	posix    []*state.PosixTimer
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	return &Subsystem{env: env, kept: map[record.ProcessID]*saved{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Keeps reports that nothing is done before the stages without records.
func (s *Subsystem) Keeps() bool { return true }

// Status counts timers.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.timers.Load()} }

// Fault cannot be served: timers exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("timer: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what is known.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.kept {
		fmt.Fprintf(w, "process %d: %d interval timers, %d POSIX timers\n", id, len(k.interval), len(k.posix))
		for _, t := range k.posix {
			fmt.Fprintf(w, "  %v\n", t)
		}
	}
	return nil
}
