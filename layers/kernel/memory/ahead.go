// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// ahead is what an export knows of a process whose memory is copied while it
// runs. Of all mappings the private ones without a file are copied ahead; the
// rest comes when the process is stopped.
type ahead struct {
	// track is the userfaultfd that tracks writes. The descriptor is the only
	// thing that holds the tracking: see target.Process.UserFault.
	track *os.File
	// armed are the addresses that were registered with it.
	armed pageSet
	// fresh are those of them that were not looked at since: their pages may have
	// marks of an earlier tracking.
	fresh pageSet
	// sent are the mappings that the destination has, have the pages that it has
	// as they were when they were last protected, and filled all that may hold
	// anything there, also what could not be read in time.
	sent         []*state.Mapping
	have, filled pageSet
	// repeats are the pages that the last round has not sent, since others hold the
	// same: see doubtful.
	repeats []repeat
	// bypass is how the process reads past the page cache, steady whether its pages
	// were protected while it stood still, and unsettled are those that were looked at
	// while a device may have written to them: see direct.go.
	bypass    bypass
	steady    bool
	unsettled pageSet
	// maps are the mappings when the tracking was extended last, smaps more about
	// them or about those a little later.
	maps  []procfs.Mapping
	smaps []procfs.SmapsMapping
	// listed is memory that can be left behind and of which every page was there when
	// it was looked at: see round.list.
	listed pageSet
	// foreseen is the look at the pages that was begun when the process was stopped.
	foreseen *foreseen
	// locked is what mlock(2) held then, in bytes.
	locked      uint64
	incarnation int // of the process at the destination, whose these are
	// stopped is how long the process stood still for the tracking, stops how
	// often.
	stopped time.Duration
	stops   int
	// lockFuture are the process's flags of mlockall(2) for new mappings.
	lockFuture uint32
}

// round is one early round of one process.
type round struct {
	s   *Subsystem
	p   *target.Process
	a   *ahead
	out record.Sink
}

// exportEarly copies what was written since the last round, all of it at first.
// The process may do anything meanwhile, or end.
func (s *Subsystem) exportEarly(ctx context.Context, step record.Step, out record.Sink) (record.Progress, error) {
	if err := s.huge.promised(s.env.Peer != nil); err != nil {
		return record.Progress{}, fmt.Errorf("memory: %w", err)
	}
	p := s.env.Source.Process(step.Process)
	if p == nil || s.env.Source.Paused() || !p.Ahead && !step.Lean {
		return record.Progress{Done: true}, nil
	}
	s.mu.Lock()
	a := s.aheads[step.Process]
	if a == nil {
		a = &ahead{}
		s.aheads[step.Process] = a
	}
	if a.incarnation != p.Incarnation { // the destination has nothing of it again
		a.incarnation = p.Incarnation
		a.sent, a.have, a.filled = nil, nil, nil
	}
	s.mu.Unlock()
	if p.Crowded() && !step.Lean {
		s.note(fmt.Sprintf("pid %d is not copied ahead now: it has its memory in common with another process", p.Pid))
		return record.Progress{Done: true, Remaining: (&round{s, p, a, out}).size()}, nil
	}
	r := &round{s, p, a, out}
	run := r.run
	if step.Lean {
		run = r.describe
	}
	pr, err := run(ctx, step.Last)
	if procfs.IsGone(err) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EFAULT) || errors.Is(err, errPartial) {
		// It has ended, or executes another program. What this round has not
		// sent is seen by the next one, or when it is stopped.
		return record.Progress{Done: true}, nil
	}
	if err != nil {
		return record.Progress{}, fmt.Errorf("memory: pid %d: %w", p.Pid, err)
	}
	return pr, nil
}

// describe sends nothing and stops nothing: it reads what takes long to read, see
// stoppedSmaps and list.
func (r *round) describe(context.Context, bool) (record.Progress, error) {
	err := r.readSmaps(true)
	if err == nil {
		err = r.list()
	}
	return record.Progress{Done: true, Advanced: true}, err
}

// run is the round. Without tracking it does nothing: what was sent once would
// have to be sent again.
func (r *round) run(ctx context.Context, last bool) (record.Progress, error) {
	if ok, err := r.heed(); err != nil || !ok {
		return record.Progress{Done: true, Remaining: r.size()}, err
	}
	if err := r.track(ctx); err != nil {
		if errors.Is(err, ctx.Err()) {
			return record.Progress{}, err
		}
		r.s.note(fmt.Sprintf("pid %d is not copied ahead: %v", r.p.Pid, err))
		return record.Progress{Done: true, Remaining: r.size()}, nil
	}
	if err := r.readSmaps(last); err != nil {
		return record.Progress{}, err
	}
	mappings, err := early(r.a.smaps)
	if err != nil {
		return record.Progress{}, err
	}
	if err := r.sendMappings(ctx, mappings); err != nil {
		return record.Progress{}, err
	}
	pm, err := openPagemap(r.p.Pid)
	if err != nil {
		return record.Progress{}, err
	}
	defer pm.Close()
	n, err := r.sendPages(ctx, pm)
	if err != nil {
		return record.Progress{}, err
	}
	if last {
		// What it has opened since was open while pages were looked at.
		if _, err := r.heed(); err != nil {
			return record.Progress{}, err
		}
		if err := r.refresh(); err != nil {
			return record.Progress{}, err
		}
	}
	left, err := r.written(pm)
	return record.Progress{Done: true, Advanced: true, Bytes: n, Remaining: left}, err
}

// size is what the process has in memory, roughly, or 0.
func (r *round) size() uint64 {
	st, err := r.p.Proc.Status()
	if err != nil {
		return 0
	}
	return st.Vm.RSSAnon + st.Vm.Swap
}

// readSmaps costs time in proportion to the memory: it is done where the
// mappings have changed, or where always is set.
func (r *round) readSmaps(always bool) (err error) {
	if !always && sameMappings(r.a.maps, r.a.smaps) {
		return nil
	}
	if r.a.locked, err = lockedBytes(r.p); err != nil {
		return err
	}
	r.a.smaps, err = procfs.Consistent(r.p.Proc.Smaps)
	return err
}

// refresh reads smaps again at the end of the last round if the mappings have
// changed meanwhile, so that it need not be done when the process is stopped.
func (r *round) refresh() error {
	maps, err := procfs.Consistent(r.p.Proc.Maps)
	if err != nil || sameMappings(maps, r.a.smaps) {
		return err
	}
	return r.readSmaps(true)
}

// sameMappings compares what maps and smaps both show.
func sameMappings(maps []procfs.Mapping, smaps []procfs.SmapsMapping) bool {
	return slices.EqualFunc(maps, smaps, func(a procfs.Mapping, b procfs.SmapsMapping) bool { return a == b.Mapping })
}

// early are the mappings that are copied ahead. What cannot be carried is left
// to the pre-flight and to the residual to name.
func early(smaps []procfs.SmapsMapping) ([]*state.Mapping, error) {
	var out []*state.Mapping
	for _, s := range smaps {
		s.Flags &^= procfs.VMUffdWP
		kind, m, err := classify(&s)
		var no *refusal
		if err != nil && !errors.As(err, &no) {
			return nil, err
		}
		if err != nil || kind != partCarried || !isEarly(m) {
			continue
		}
		m.Name, m.Locked = "", 0 // come at the end, for all
		out = append(out, m)
	}
	return out, nil
}

// isEarly: private memory without a file.
func isEarly(m *state.Mapping) bool { return m.Backing == state.Backing_BACKING_ANONYMOUS && !m.Shared }

// addresses are those of mappings in ascending order.
func addresses(mappings []*state.Mapping) (s pageSet) {
	for _, m := range mappings {
		s = s.put(run{m.Start, end(m)})
	}
	return s
}

// sendMappings tells the destination of the mappings if they have changed. It
// drops the pages that the destination loses by that.
func (r *round) sendMappings(ctx context.Context, mappings []*state.Mapping) error {
	if r.a.sent != nil && equalMappings(r.a.sent, mappings) {
		return nil
	}
	if len(mappings) == 0 {
		return nil
	}
	exe, err := r.p.Proc.Exe()
	if err != nil {
		return err
	}
	// What counts of it comes with the residual.
	space := &state.AddressSpace{Exe: exe.Path, Mappings: uint32(len(mappings))}
	addOwnVDSO(space, r.a.smaps)
	if err := pushLayout(ctx, r.p.ID, space, mappings, r.out); err != nil {
		return err
	}
	stays := kept(r.a.sent, mappings)
	r.a.have, r.a.filled = r.a.have.intersect(stays), r.a.filled.intersect(stays)
	r.a.sent = mappings
	return nil
}

// content selects pages that hold something. A guard region's markers count as
// swapped.
var content = selection{none: pageIsPFNZero | pageIsGuard, any: pageIsPresent | pageIsSwapped}

// pages of a process at one moment.
type pages struct {
	// present hold something, dirty are those of them that were written since
	// they were last protected, or are untracked. Of those that are supposed to be
	// there nobody knows, see list.
	present, dirty, untracked, supposed pageSet
}

func (p *pages) add(r pageRegion) {
	x := run{r.start, r.end}
	p.present = p.present.put(x)
	if r.categories&pageIsTracked == 0 {
		p.untracked = p.untracked.put(x)
	}
	if r.categories&pageIsWritten != 0 || r.categories&pageIsTracked == 0 {
		p.dirty = p.dirty.put(x)
	}
}

// and are the pages of both, of which none is in the other.
func (p *pages) and(o *pages) pages {
	return pages{p.present.union(o.present), p.dirty.union(o.dirty), p.untracked.union(o.untracked), p.supposed.union(o.supposed)}
}

// look scans the ranges. With flags scanProtect what is tracked becomes clean in
// the moment in which it is seen.
func look(pm *pagemap, ranges pageSet, flags uint64) (pages, error) {
	var tracked, rest pages
	for _, x := range ranges {
		w := walk{content, pageIsWritten | pageIsTracked, flags}
		if flags&scanProtect == 0 {
			if err := pm.walk(x.start, x.end, w, tracked.add); err != nil {
				return pages{}, err
			}
			continue
		}
		w.all |= pageIsTracked
		if err := pm.walk(x.start, x.end, w, tracked.add); err != nil {
			return pages{}, err
		}
		w = walk{content, 0, 0}
		w.none |= pageIsTracked
		if err := pm.walk(x.start, x.end, w, rest.add); err != nil {
			return pages{}, err
		}
	}
	return tracked.and(&rest), nil
}

// protect looks at pages and protects them. Of those that were registered since
// the last look all count as written, and marks that some have nevertheless are
// taken away first.
func (r *round) protect(pm *pagemap, ranges pageSet) (pages, error) {
	seen, err := look(pm, ranges, scanProtect)
	if err != nil {
		return pages{}, err
	}
	stale := seen.present.subtract(seen.dirty).intersect(r.a.fresh)
	r.a.fresh = nil
	if len(stale) == 0 {
		return seen, nil
	}
	for _, x := range stale {
		if err := unprotect(r.a.track, x); err != nil && !errors.Is(err, unix.ENOENT) { // its mapping is gone
			return pages{}, err
		}
	}
	again, err := look(pm, stale, scanProtect)
	if err != nil {
		return pages{}, err
	}
	seen.untracked = seen.untracked.union(again.untracked)
	seen.present = seen.present.subtract(stale).union(again.present)
	seen.dirty = seen.dirty.union(again.present)
	r.a.fresh = again.present.subtract(again.dirty) // once more, then
	return seen, nil
}

// sendPages sends what the destination lacks.
func (r *round) sendPages(ctx context.Context, pm *pagemap) (uint64, error) {
	seen, err := r.protect(pm, addresses(r.a.sent))
	if err != nil {
		return 0, err
	}
	// Whatever was reported untracked may be registered again next time.
	r.a.armed = r.a.armed.subtract(seen.untracked)
	r.a.settle(&seen)
	r.a.unsettle(&seen)
	send := seen.dirty.union(seen.present.subtract(r.a.have))
	if err := pushDropped(ctx, r.p.ID, r.a.filled.subtract(seen.present), r.out); err != nil {
		return 0, err
	}
	c := &copier{s: r.s, p: r.p, out: r.out, live: true, blank: blanks(r.a.sent), finder: r.s.newFinder(send.bytes())}
	if err := c.send(ctx, plan(send)); err != nil {
		return 0, err
	}
	r.a.repeats = c.repeats
	r.a.have, r.a.filled = seen.present.subtract(c.missed), seen.present
	return send.bytes(), nil
}

// settle takes those repeated pages that the destination may have wrong out of
// what it has. seen is the first look since they were compared.
func (a *ahead) settle(seen *pages) {
	if len(a.repeats) > 0 {
		a.have = a.have.subtract(doubtful(a.repeats, seen))
		a.repeats = nil
	}
}

// written are the bytes that would have to be sent if the process were stopped now.
func (r *round) written(pm *pagemap) (n uint64, err error) {
	n = r.a.unsettled.bytes() // some of which may be counted twice
	w := walk{content, 0, 0}
	w.all |= pageIsWritten
	for _, x := range addresses(r.a.sent) {
		if err := pm.walk(x.start, x.end, w, func(r pageRegion) { n += r.end - r.start }); err != nil {
			return 0, err
		}
	}
	return n, nil
}
