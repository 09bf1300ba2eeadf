// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// filler fills the memory that was left behind while the copy runs: with what is
// pushed, and with what it pulls where the copy waits. One serves the address
// spaces of one process of the image, its own and those of its children that were
// forked since. A page that has not come is never made up: whoever touches it
// waits.
//
// Source: Documentation/admin-guide/mm/userfaultfd.rst, "Non-cooperative
// userfaultfd"; ioctl_userfaultfd(2).
type filler struct {
	s  *Subsystem
	id record.ProcessID
	// ctx ends when all is there.
	ctx  context.Context
	stop context.CancelFunc

	mu     sync.Mutex
	spaces []*lazySpace
	// pulling are the pages that were asked for.
	pulling map[uint64]bool
}

// receiveLeft takes note of pages that were left behind. They may be there from
// an early round, but not as they are now.
func (s *Subsystem) receiveLeft(t *target.Task, l *layout, in *record.Record) error {
	runs, err := decodeRuns(in.Payload)
	if err != nil {
		return fmt.Errorf("%w: %w", errLayout, err)
	}
	if !l.mapped || l.built || s.env.Frame == nil {
		return fmt.Errorf("%w: pages are left behind before the mappings, or too late", errLayout)
	}
	may := mayStay(l.mappings)
	for _, r := range runs {
		if n := len(l.left); n > 0 && r.start < l.left[n-1].end {
			return fmt.Errorf("%w: pages are left behind twice at %#x", errLayout, r.start)
		}
		if len((pageSet{r}).subtract(may)) > 0 {
			return fmt.Errorf("%w: pages %#x-%#x cannot be left behind", errLayout, r.start, r.end)
		}
		l.left = l.left.put(r)
	}
	return dropPages(t, runs)
}

// guard has a userfaultfd held by somebody who outlives the engine.
func (s *Subsystem) guard(f *os.File) (drop func() error, err error) {
	if s.env.Keep == nil {
		return func() error { return nil }, nil
	}
	drop, err = s.env.Keep(f)
	if err != nil {
		return nil, fmt.Errorf("have the userfaultfd held: %w", err)
	}
	return drop, nil
}

// serveLeft makes the process wait for the pages that were left behind, from now
// on, and begins to serve it.
func (s *Subsystem) serveLeft(t *target.Task, l *layout) error {
	if len(l.left) == 0 {
		return nil
	}
	f, err := lazyUserFault(t)
	if err != nil {
		return fmt.Errorf("memory can be left behind only with userfaultfd (try pre-copy or stop-and-copy): %w", err)
	}
	sp := &lazySpace{f: f}
	for _, m := range l.mappings {
		if !leavable(m) || len(l.left.intersect(addresses([]*state.Mapping{m}))) == 0 {
			continue
		}
		arg := uffdioRegisterArg{start: m.Start, length: m.Length, mode: uffdioRegisterModeMissed}
		if err := control(f, uffdioRegister, ptr(&arg)); err != nil {
			return errors.Join(fmt.Errorf("watch for faults in %#x-%#x: %w", m.Start, end(m), err), f.Close())
		}
		sp.windows = append(sp.windows, window{at: run{m.Start, end(m)}, origin: m.Start})
	}
	if sp.drop, err = s.guard(f); err != nil {
		return errors.Join(err, f.Close())
	}
	fl := &filler{s: s, id: t.ID, pulling: map[uint64]bool{}, spaces: []*lazySpace{sp}}
	fl.ctx, fl.stop = context.WithCancel(context.Background())
	l.filler = fl
	go fl.serve(sp)
	if err := emptyLeft(t, slices.Clone(sp.windows), l.left); err != nil {
		return err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	sp.missing = l.left
	return nil
}

// emptyLeft drops what is at the addresses of pages that were left behind.
// Until the userfaultfd has the mapping, the kernel may make huge pages of what
// is there, with zeros around what was written (khugepaged,
// Documentation/admin-guide/mm/transhuge.rst), and a page that is there is not
// filled.
func emptyLeft(t *target.Task, windows []window, left pageSet) error {
	pm, err := openPagemap(t.Pid)
	if err != nil {
		return err
	}
	defer pm.Close()
	var there pageSet
	for _, w := range windows {
		err := pm.scan(w.at.start, w.at.end, selection{any: pageIsPresent | pageIsSwapped}, func(start, end uint64) {
			there = there.put(run{start, end})
		})
		if errors.Is(err, unix.ENOTTY) { // Linux 6.6 and older
			there = left
			break
		}
		if err != nil {
			return err
		}
	}
	if there = there.intersect(left); len(there) == 0 {
		return nil
	}
	return dropPages(t, there)
}

// serve reads what happens in one address space, until it ends or is whole. The
// program goes on as soon as its event was read, so nothing may be filled between
// that and its handling: both are done under the lock.
func (fl *filler) serve(sp *lazySpace) {
	c, err := sp.f.SyscallConn()
	if err != nil {
		return // closed
	}
	msg := make([]byte, uffdMsgSize)
	for {
		ended := false
		err := c.Read(func(fd uintptr) bool {
			fl.mu.Lock()
			defer fl.mu.Unlock()
			n, err := unix.Read(int(fd), msg)
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				return false
			}
			if ended = err != nil || n != uffdMsgSize; !ended {
				fl.handle(sp, decodeEvent(msg))
			}
			return true
		})
		if err != nil || ended {
			return
		}
	}
}

func (fl *filler) handle(sp *lazySpace, e event) {
	switch e.kind {
	case uffdEventPagefault:
		fl.fault(sp, e.b&^(pageSize-1))
	case uffdEventFork:
		child := &lazySpace{f: os.NewFile(uintptr(uint32(e.a)), "userfaultfd"), books: sp.fork()}
		if drop, err := fl.s.guard(child.f); err == nil {
			child.drop = drop // else it ends with the engine: nothing better can be had
		}
		fl.spaces = append(fl.spaces, child)
		go fl.serve(child)
	case uffdEventRemap:
		sp.moved(e.a, e.b, e.c)
		sp.wake(run{e.a, e.a + e.c})
	case uffdEventRemove:
		sp.emptied(run{e.a, e.b})
		sp.wake(run{e.a, e.b})
	case uffdEventUnmap:
		sp.unmapped(run{e.a, e.b})
		sp.wake(run{e.a, e.b})
	}
}

// fault serves a page that somebody waits for.
func (fl *filler) fault(sp *lazySpace, at uint64) {
	page := run{at, at + pageSize}
	want := sp.origins(page).intersect(sp.missing)
	if len(want) == 0 {
		sp.zero(page)
		return
	}
	r := want[0]
	if fl.pulling[r.start] {
		return
	}
	// What follows will be touched next, as a rule.
	const ahead = 64 << 10
	r = (pageSet{{r.start, r.start + ahead}}).intersect(sp.missing)[0]
	for a := r.start; a < r.end; a += pageSize {
		if fl.pulling[a] {
			r.end = a
			break
		}
		fl.pulling[a] = true
	}
	if fl.s.env.Peer != nil {
		go fl.pull(r)
	}
}

// pull asks the source for pages until it has given them.
func (fl *filler) pull(r run) {
	const slowest = time.Second
	for pause := time.Millisecond; fl.ctx.Err() == nil; pause = min(2*pause, slowest) {
		err := fl.pullOnce(r)
		if err == nil || fl.ctx.Err() != nil {
			return
		}
		fl.s.note(fmt.Sprintf("process %d waits for pages: %v", fl.id, err))
		time.Sleep(pause)
	}
}

func (fl *filler) pullOnce(r run) error {
	rec, release, err := fl.s.env.Peer.Pull(fl.ctx, record.Pull{Subsystem: Name, Process: fl.id, Entity: r.start, Length: uint32(r.bytes())})
	if err != nil {
		return err
	}
	defer release()
	if err := rec.Verify(); err != nil {
		return err
	}
	if rec.Kind != KindPages || rec.Entity != r.start || uint64(len(rec.Payload)) != r.bytes() {
		return fmt.Errorf("%w: %s with %d bytes answers a pull of %#x-%#x", errLayout, rec.Header, len(rec.Payload), r.start, r.end)
	}
	return fl.arrive([]run{r}, rec.Payload)
}

// arrive puts pages where they are missing.
func (fl *filler) arrive(runs []run, data []byte) error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, r := range runs {
		for i := 0; i < len(fl.spaces); i++ { // a fork adds one meanwhile
			if err := fl.put(fl.spaces[i], r, data[:r.bytes()]); err != nil {
				return err
			}
		}
		for a := r.start; a < r.end; a += pageSize {
			delete(fl.pulling, a)
		}
		data = data[r.bytes():]
	}
	return nil
}

// put fills what one address space lacks of a run. The lock is given up while an
// event waits to be read.
func (fl *filler) put(sp *lazySpace, r run, data []byte) error {
	for most := r.bytes(); ; {
		if sp.doubt {
			if sp.changing() {
				fl.giveWay()
				continue
			}
			sp.settle()
		}
		part, at, ok := sp.lacks(r)
		if !ok {
			return nil
		}
		part.end = min(part.end, part.start+most)
		n, err := sp.supply(at, data[part.start-r.start:part.end-r.start])
		sp.missing = sp.missing.subtract(pageSet{{part.start, part.start + n}})
		part.start += n
		switch {
		case err == nil:
			most = r.bytes()
		case errors.Is(err, unix.EAGAIN):
			fl.giveWay()
		case errors.Is(err, unix.EEXIST):
			// The program was given a page here, and has it.
			sp.missing = sp.missing.subtract(pageSet{{part.start, part.start + pageSize}})
		case errors.Is(err, unix.ENOENT) && part.bytes() > pageSize:
			// One copy has to lie in one mapping, and mprotect(2) splits them.
			most = max(part.bytes()/2&^(pageSize-1), pageSize)
		case errors.Is(err, unix.ENOENT) && sp.changing():
			fl.giveWay() // it may be elsewhere
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH), errors.Is(err, os.ErrClosed):
			// Unmapped, or ended: what is not there cannot be touched.
			sp.missing = sp.missing.subtract(pageSet{part})
		default:
			return fmt.Errorf("UFFDIO_COPY to %#x: %w", at+n, err)
		}
	}
}

// giveWay lets an event be read.
func (fl *filler) giveWay() {
	fl.mu.Unlock()
	time.Sleep(20 * time.Microsecond)
	fl.mu.Lock()
}

// Fill fetches what has stopped coming (kernel.Filler): page by page, as long as
// it takes.
func (s *Subsystem) Fill(ctx context.Context) error {
	s.mu.Lock()
	var fillers []*filler
	for _, l := range s.imports {
		if l.filler != nil {
			fillers = append(fillers, l.filler)
		}
	}
	s.mu.Unlock()
	if s.env.Peer == nil && len(fillers) > 0 {
		return errors.New("memory: nobody to fetch from what was left behind")
	}
	for _, fl := range fillers {
		for r, more := fl.first(); more; r, more = fl.first() {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			fl.pull(r)
		}
		if err := fl.end(); err != nil {
			return fmt.Errorf("memory: process %d: %w", fl.id, err)
		}
	}
	return nil
}

// first is a piece of what is missing.
func (fl *filler) first() (run, bool) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, sp := range fl.spaces {
		if len(sp.missing) > 0 {
			r := sp.missing[0]
			r.end = min(r.end, r.start+maxPull)
			return r, true
		}
	}
	return run{}, false
}

// end is told that everything was sent: nothing may be missing.
func (fl *filler) end() error {
	spaces, err := fl.whole()
	if err != nil {
		return err
	}
	fl.stop()
	var errs []error
	for _, sp := range spaces {
		if sp.drop != nil {
			errs = append(errs, sp.drop()) // while its events are still read here
		}
		// It waits for whoever reads, so not under the lock.
		if err := sp.f.Close(); !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// whole takes the address spaces if nothing is missing in any.
func (fl *filler) whole() ([]*lazySpace, error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, sp := range fl.spaces {
		if n := sp.missing.bytes(); n > 0 {
			return nil, fmt.Errorf("%w: %d bytes of what was left behind have not come, the first at %#x", errLayout, n, sp.missing[0].start)
		}
	}
	spaces := fl.spaces
	fl.spaces = nil
	return spaces, nil
}
