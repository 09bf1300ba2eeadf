// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// track begins the tracking, or extends it to what was mapped since. The process
// stands still while its mappings are looked at and registered: a mapping that
// changed in between would be registered in part, which splits it, and what the
// program may do with one mapping (mremap(2)) it may not do with two.
func (r *round) track(ctx context.Context) error {
	maps, err := procfs.Consistent(r.p.Proc.Maps)
	if err != nil {
		return err
	}
	if r.a.track != nil && slices.Equal(maps, r.a.maps) && r.a.complete(maps) && (r.a.steady || r.a.bypass != bypassDirect) {
		return nil
	}
	stopped, err := r.p.Pause(ctx, func() error {
		maps, err := r.p.Proc.Maps()
		if err != nil {
			return err
		}
		if err := r.openTracking(maps); err != nil {
			return err
		}
		r.a.maps = maps
		return r.steady(maps)
	})
	r.a.stopped += stopped
	r.a.stops++
	if err == nil {
		r.s.note(fmt.Sprintf("pid %d: writes are tracked; it stood still %d times, %s in all", r.p.Pid, r.a.stops, r.a.stopped.Round(10*time.Microsecond)))
	}
	return err
}

// openTracking registers the mappings of the stopped process.
func (r *round) openTracking(maps []procfs.Mapping) error {
	if r.a.track != nil {
		err := r.register(maps)
		if !errors.Is(err, unix.ESRCH) {
			return err
		}
		// It executes another program now: the tracking has ended with its old
		// address space.
		r.a.track, r.a.armed, r.a.fresh = nil, nil, nil
	}
	f, err := r.p.UserFault()
	if err != nil {
		return err
	}
	if err := enableTracking(f); err != nil {
		return errors.Join(err, f.Close())
	}
	r.p.OnRelease(f)
	r.a.track = f
	return r.register(maps)
}

// trackable: private memory without a file, as far as maps tells.
func trackable(m *procfs.Mapping) bool {
	switch m.Kind {
	case procfs.MapAnon, procfs.MapHeap, procfs.MapStack, procfs.MapAnonNamed:
		return !m.Shared
	}
	return false
}

func trackables(maps []procfs.Mapping) (s pageSet) {
	for i := range maps {
		if m := &maps[i]; trackable(m) {
			s = s.put(run{m.Start, m.End})
		}
	}
	return s
}

// complete: all that can be is registered.
func (a *ahead) complete(maps []procfs.Mapping) bool {
	return len(trackables(maps).subtract(a.armed)) == 0
}

// register registers the mappings that are not wholly registered yet; never a
// part of one, which would split it. What the kernel refuses to track, such as
// droppable memory, stays untracked and is sent whole in the end.
//
// A mapping may have lost its tracking: where mremap(2) joins a tracked mapping to
// its neighbours, all of them lose it, and the pages keep their marks, whatever is
// written to them then (mm/mremap.c, copy_vma_and_data; fs/userfaultfd.c,
// mremap_userfaultfd_prep; of 6.18). So marks count only from the first look after
// the registration on: see sendPages.
func (r *round) register(maps []procfs.Mapping) error {
	a := r.a
	all := trackables(maps)
	lacking := all.subtract(a.armed)
	var todo pageSet
	for i := range maps {
		m := &maps[i]
		if trackable(m) && len(lacking.intersect(pageSet{{m.Start, m.End}})) > 0 {
			todo = todo.put(run{m.Start, m.End})
		}
	}
	pm, err := openPagemap(r.p.Pid)
	if err != nil {
		return err
	}
	defer pm.Close()
	lost, err := pm.untracked(todo.subtract(lacking))
	if err != nil {
		return err
	}
	a.fresh = a.fresh.union(lacking).union(lost)
	for _, x := range todo {
		err := register(a.track, x)
		if errors.Is(err, unix.ESRCH) {
			return err
		}
		if err != nil {
			a.registerEach(maps, x)
		}
	}
	a.armed = all
	return nil
}

// untracked are the pages in s whose mapping has no tracking. Mappings that have
// it are passed over as a whole.
func (p *pagemap) untracked(s pageSet) (out pageSet, err error) {
	for _, x := range s {
		if err := p.scan(x.start, x.end, selection{none: pageIsTracked, any: content.any}, func(start, end uint64) {
			out = out.put(run{start, end})
		}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// registerEach registers the mappings in x one by one.
func (a *ahead) registerEach(maps []procfs.Mapping, x run) {
	for i := range maps {
		if m := &maps[i]; trackable(m) && m.Start >= x.start && m.End <= x.end {
			_ = register(a.track, run{m.Start, m.End}) // untracked, then
		}
	}
}
