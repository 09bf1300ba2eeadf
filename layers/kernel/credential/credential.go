// SPDX-License-Identifier: Apache-2.0

// Package credential exports and imports what a thread may do: its ids and
// groups, capability sets, secure bits and no_new_privs, and with the process
// whether it may be dumped and its resource limits.
//
// An image is untrusted: it can only narrow what the live request's spec gives
// (target.Allowed). Whatever it asks for beyond that is an error before
// anything is set, and afterwards each thread is compared with what was asked
// for, as the kernel shows it.
//
// The seccomp filters of the spec are not in the image, since the frame has
// those of the live spec; what a program has added is, and is loaded on top of
// them, so that an image can forbid more and never less. Keyrings are not carried;
// how many keys the container's session keyring has is seen from outside, and
// warned of (see keys.go).
//
// Sources: credentials(7), capabilities(7), prctl(2), capget(2), getrlimit(2),
// kernel/cred.c and security/commoncap.c.
package credential

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
const Name = "credential"

// Kinds of records.
const (
	// KindProcess: state.ProcessLimits, entity 0.
	KindProcess = 1
	// KindThreads: state.ThreadCredentials, entity is the first one's id.
	KindThreads = 2
	// KindFilter: state.SeccompFilter, entity is its number in the process.
	KindFilter = 3
)

const (
	threadsPerRecord = 128
	// groupsPerRecord keeps records small whatever a thread's groups.
	groupsPerRecord = 1 << 17
	// maxGroups is NGROUPS_MAX of include/uapi/linux/limits.h.
	maxGroups = 65536
	// maxThreads is the kernel's largest pid (PID_MAX_LIMIT).
	maxThreads = 4 << 20
)

// errImage marks records that contradict themselves or each other.
var errImage = errors.New("the image's credentials are invalid")

// ErrBeyondSpec marks an image that asks for more than the live request's spec
// gives.
var ErrBeyondSpec = errors.New("the image asks for more than the spec of this request allows")

// Subsystem is one event's credentials.
type Subsystem struct {
	env     target.Env
	threads atomic.Uint64
	ahead   ahead

	mu   sync.Mutex
	kept map[record.ProcessID]*saved
}

// saved is one process on its way in.
type saved struct {
	process *state.ProcessLimits
	threads []*state.ThreadCredential
	// filters by their number, and their size in all.
	filters     []*state.SeccompFilter
	filterBytes int
	// loaded is how many filters all threads have already.
	loaded int
}

// New makes the subsystem for one event.
func New(env target.Env) *Subsystem {
	env.WillAsk(aboutCredentials, aboutDumps)
	s := &Subsystem{env: env, kept: map[record.ProcessID]*saved{}}
	if env.Source != nil {
		env.Source.OnHeld(func(processes []*target.Process) { s.ahead.begin(processes, env.Source.SeccompFilters) })
	}
	return s
}

// Name of the subsystem.
func (s *Subsystem) Name() string { return Name }

// Keeps reports that nothing is done before the stages without records.
func (s *Subsystem) Keeps() bool { return true }

// Status counts threads.
func (s *Subsystem) Status() record.Status { return record.Status{Entities: s.threads.Load()} }

// Fault cannot be served: credentials exist once.
func (s *Subsystem) Fault(_ context.Context, f record.Fault) error {
	return fmt.Errorf("credential: %s: no second copy to recover it from: %w", f.Header, errors.ErrUnsupported)
}

// Dump lists what is known.
func (s *Subsystem) Dump(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.kept {
		fmt.Fprintf(w, "process %d: %v\n", id, k.process)
		for _, t := range k.threads {
			fmt.Fprintf(w, "  %v\n", t)
		}
		for i, f := range k.filters {
			fmt.Fprintf(w, "  seccomp filter %d: %x, log %v\n", i, f.Code, f.Log)
		}
	}
	return nil
}

// Untraced reports that an export asks for many groups and for filters at most.
func (s *Subsystem) Untraced() bool { return true }
