// SPDX-License-Identifier: Apache-2.0

// Package signal exports and imports signal state: dispositions, masks,
// alternate stacks and what is pending.
//
// Sources: rt_sigaction(2), sigaltstack(2), rt_sigqueueinfo(2) and
// ptrace(2), PTRACE_PEEKSIGINFO.
package signal

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
const Name = "signal"

// Kinds of records.
const (
	// KindProcess: state.ProcessSignals, entity 0.
	KindProcess = 1
	// KindThreads: state.ThreadSignals, entity is the first one's id.
	KindThreads = 2
)

const (
	signals = 64
	// actionSize is the size of the kernel's struct sigaction on x86-64:
	// handler, flags, restorer, mask.
	actionSize = 32
	// stackSize is the size of stack_t: base, flags, padding, size.
	stackSize = 24
	// infoSize is the size of siginfo_t.
	infoSize = 128
	// maxPending bounds what an image may queue; the kernel's own limit is
	// RLIMIT_SIGPENDING.
	maxPending = 1 << 16

	threadsPerRecord = 512
)

// Flags of sigaltstack(2).
const (
	ssOnStack    = 1
	ssDisable    = 2
	ssAutodisarm = 1 << 31
)

// Subsystem is one event's signals.
type Subsystem struct {
	env     target.Env
	threads atomic.Uint64

	mu   sync.Mutex
	kept map[record.ProcessID]*saved
}

// saved is one process on its way in.
type saved struct {
	process *state.ProcessSignals
	threads []*state.ThreadSignal
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	env.WillAsk(aboutStack, aboutActions)
	return &Subsystem{env: env, kept: map[record.ProcessID]*saved{}}
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Keeps reports that nothing is done before the stages without records.
func (s *Subsystem) Keeps() bool { return true }

// Status counts threads.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.threads.Load()} }

// Fault cannot be served: signals exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("signal: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what is known.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.kept {
		fmt.Fprintf(w, "process %d: %d actions, %d pending, %d threads\n", id, len(k.process.GetAction()), len(k.process.GetPending()), len(k.threads))
	}
	return nil
}
