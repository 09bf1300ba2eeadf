// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"sync/atomic"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// foresight is the smaps of a stopped process, which are read while other
// subsystems have their turns: the kernel looks at every page for them, 10 ms for
// each gigabyte on one processor.
type foresight struct {
	of    *tracer.Process
	done  chan struct{} // closed when the rest is there
	smaps []procfs.SmapsMapping
	err   error
}

// foreseeable bounds the processes whose smaps are read before their turns: what is
// read is kept until then.
const foreseeable = 64

// foresee begins to read, in the order in which the processes have their turns.
func (s *Subsystem) foresee(processes []*target.Process) {
	type reading struct {
		proc procfs.Task
		to   *foresight
	}
	var list []reading
	s.mu.Lock()
	for _, p := range processes[:min(len(processes), foreseeable)] {
		if p.Space() != p {
			continue
		}
		if f := s.looks[p.ID]; f != nil && f.of == p.Traced {
			continue
		}
		if a := s.aheads[p.ID]; a != nil && a.smaps != nil {
			if f := a.foreseen; f == nil || f.of != p.Traced {
				a.beginLook(p)
			}
			continue // the last early round's do, mostly
		}
		f := &foresight{of: p.Traced, done: make(chan struct{})}
		s.looks[p.ID] = f
		list = append(list, reading{p.Proc, f})
	}
	s.mu.Unlock()
	var taken atomic.Int64
	for range min(s.workers, len(list)) {
		go func() {
			for {
				i := int(taken.Add(1)) - 1
				if i >= len(list) {
					return
				}
				r := list[i]
				r.to.smaps, r.to.err = r.proc.Smaps()
				close(r.to.done)
			}
		}()
	}
}

// readSmaps returns the smaps of a stopped process. They are the caller's.
func (s *Subsystem) readSmaps(p *target.Process) ([]procfs.SmapsMapping, error) {
	s.mu.Lock()
	f := s.looks[p.ID]
	delete(s.looks, p.ID)
	s.mu.Unlock()
	if f == nil || f.of != p.Traced {
		return p.Proc.Smaps()
	}
	<-f.done
	return f.smaps, f.err
}
