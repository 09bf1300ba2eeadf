// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"slices"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// foreseen is a look at the pages of a process that was copied ahead, or is left
// behind: begun when it was stopped, while others have their turns, since it walks
// all of its page tables. What it finds stays true while the process is stopped: what
// remote calls change of these pages is put back.
type foreseen struct {
	of     *tracer.Process
	again  bool // lookAgain
	ranges pageSet
	done   chan struct{}
	// Valid once done.
	seen pages
	err  error
}

// beginLook begins one where the last early round has seen the mappings.
func (a *ahead) beginLook(p *target.Process) {
	pid, smaps, filled := p.Pid, a.smaps, a.filled
	f := &foreseen{of: p.Traced, again: a.sent != nil && p.Ahead && a.incarnation == p.Incarnation, done: make(chan struct{})}
	a.foreseen = f
	go func() {
		defer close(f.done)
		mappings, err := early(smaps)
		if err != nil {
			f.err = err
			return
		}
		pm, err := openPagemap(pid)
		if err != nil {
			f.err = err
			return
		}
		defer pm.Close()
		f.ranges = addresses(mappings)
		if f.again {
			f.seen, f.err = lookAgain(pm, f.ranges, filled)
		} else {
			f.seen, f.err = look(pm, f.ranges, 0)
		}
	}()
}

// look is the look that was begun, if it was this one, or another.
func (a *ahead) look(p *target.Process, ranges pageSet, again bool) (pages, error) {
	f := a.foreseen
	a.foreseen = nil
	if f != nil && f.of == p.Traced && f.again == again {
		<-f.done
		if f.err == nil && slices.Equal(f.ranges, ranges) {
			return f.seen, nil
		}
	}
	pm, err := openPagemap(p.Pid)
	if err != nil {
		return pages{}, err
	}
	defer pm.Close()
	if again {
		return lookAgain(pm, ranges, a.filled)
	}
	return look(pm, ranges, 0)
}
