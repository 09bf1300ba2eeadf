// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"sync"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// manyThreads are so many that their files in /proc are read while other subsystems
// have their turns on the tracer's thread: to begin that for each of many processes
// of few threads would cost more than it brings.
const manyThreads = 64

// shown is what /proc alone shows of a thread.
type shown struct {
	bounding, ambient uint64
	noNewPrivileges   bool
	seccomp, filters  int
}

// ahead reads of processes that are stopped what /proc shows of their threads, in the
// background.
type ahead struct {
	mu   sync.Mutex
	find map[*target.Process]func() (map[int]shown, error)
}

// begin starts with those that were stopped just now. What an earlier stop has shown
// is forgotten.
func (a *ahead) begin(processes []*target.Process, spec int) {
	find := map[*target.Process]func() (map[int]shown, error){}
	for _, p := range processes {
		threads, err := p.Ask(aboutCredentials) // it was asked: no visit to its tracer
		if err != nil || len(threads) < manyThreads {
			continue
		}
		proc := p.Proc.Fresh() // of each thread one file is read, once
		read := sync.OnceValues(func() (map[int]shown, error) {
			out := make(map[int]shown, len(threads))
			for _, a := range threads {
				s, err := showThread(proc.Thread(a.Thread.Tid), spec)
				if err != nil {
					return nil, err
				}
				out[a.Thread.Tid] = s
			}
			return out, nil
		})
		find[p] = read
		go func() { _, _ = read() }() // who needs it takes the error, too
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.find = find
}

// of is what was found of a process's threads, nil if nobody has looked.
func (a *ahead) of(p *target.Process) (map[int]shown, error) {
	a.mu.Lock()
	read := a.find[p]
	a.mu.Unlock()
	if read == nil {
		return nil, nil
	}
	return read()
}

// showThread reads a thread's status.
func showThread(t procfs.Task, spec int) (shown, error) {
	st, err := t.Status()
	if err != nil {
		return shown{}, err
	}
	return showStatus(t.Tid(), &st, spec)
}

// showStatus refuses what a restore cannot make.
func showStatus(tid int, st *procfs.Status, spec int) (shown, error) {
	if what, why := seccompRefusal(st, spec); what != "" {
		return shown{}, refusedThread(tid, what, why)
	}
	return shown{st.Cap.Bounding, st.Cap.Ambient, st.NoNewPrivs, st.Seccomp, max(st.SeccompFilters, 0)}, nil
}

// fill adds it to what the thread has told.
func (s shown) fill(m *state.ThreadCredential) {
	m.Bounding, m.Ambient, m.NoNewPrivileges = s.bounding, s.ambient, s.noNewPrivileges
	m.SeccompMode, m.SeccompFilters = uint32(s.seccomp), uint32(s.filters)
}
