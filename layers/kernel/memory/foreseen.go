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
	// without are those that it does not look at, see list.
	without pageSet
	done    chan struct{}
	// Valid once done.
	seen pages
	err  error
}

// beginLook begins one where the last early round has seen the mappings.
func (a *ahead) beginLook(p *target.Process) {
	pid, smaps, filled, listed := p.Pid, a.smaps, a.filled, a.listed
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
			f.without = listed.intersect(f.ranges)
			f.seen, f.err = look(pm, f.ranges.subtract(f.without), 0)
		}
	}()
}

// look is the look that was begun, if it was this one, or another. Of what may stay
// behind it supposes what was listed to be there.
func (a *ahead) look(p *target.Process, ranges pageSet, again bool, may pageSet) (pages, error) {
	var seen pages
	rest, known := ranges, a.listed.intersect(may)
	if again {
		known = nil
	}
	if f := a.begun(p, ranges, again); f != nil {
		seen, rest = f.seen, f.without
	}
	if rest = rest.subtract(known); len(rest) > 0 {
		pm, err := openPagemap(p.Pid)
		if err != nil {
			return pages{}, err
		}
		defer pm.Close()
		var more pages
		if again {
			more, err = lookAgain(pm, rest, a.filled)
		} else {
			more, err = look(pm, rest, 0)
		}
		if err != nil {
			return pages{}, err
		}
		seen = seen.and(&more)
	}
	seen.suppose(known)
	return seen, nil
}

// begun is the look that was begun if it is this one, and has come to its end; nil if
// not.
func (a *ahead) begun(p *target.Process, ranges pageSet, again bool) *foreseen {
	f := a.foreseen
	a.foreseen = nil
	if f == nil || f.of != p.Traced || f.again != again {
		return nil
	}
	<-f.done
	if f.err != nil || !slices.Equal(f.ranges, ranges) {
		return nil
	}
	return f
}
