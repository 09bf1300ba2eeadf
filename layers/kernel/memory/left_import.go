// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
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

// lazySpace is one address space.
type lazySpace struct {
	f *os.File // its userfaultfd
	// drop ends the holding of a duplicate by whoever outlives the engine: the
	// kernel makes pages up as soon as nobody has a userfaultfd open any more.
	drop func() error
	// windows say where the source's addresses are now: mremap(2) moves them.
	windows []window
	// missing are the pages that have not come, at the source's addresses.
	missing pageSet
}

// window: the addresses at are those of the source from origin on.
type window struct {
	at     run
	origin uint64
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
	var may pageSet
	for _, m := range l.mappings {
		if leavable(m) {
			may = may.put(run{m.Start, end(m)})
		}
	}
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

// Requests and features of include/uapi/linux/userfaultfd.h; see also fill.go.
const (
	uffdNew       = 0xaa00     // USERFAULTFD_IOC_NEW
	uffdioWake    = 0x8010aa02 // _IOR(UFFDIO, 0x02, struct uffdio_range)
	uffdioZeropag = 0xc020aa04 // _IOWR(UFFDIO, 0x04, struct uffdio_zeropage)

	uffdFeatureEventFork   = 1 << 1
	uffdFeatureEventRemap  = 1 << 2
	uffdFeatureEventRemove = 1 << 3
	uffdFeatureEventUnmap  = 1 << 6

	uffdEventPagefault = 0x12
	uffdEventFork      = 0x13
	uffdEventRemap     = 0x14
	uffdEventRemove    = 0x15
	uffdEventUnmap     = 0x16

	uffdMsgSize = 32 // struct uffd_msg
)

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
	sp := &lazySpace{f: f, missing: l.left}
	for _, m := range l.mappings {
		if !leavable(m) || len(l.left.intersect(addresses([]*state.Mapping{m}))) == 0 {
			continue
		}
		arg := uffdioRegisterArg{start: m.Start, length: m.Length, mode: uffdioRegisterModeMissed}
		if err := control(f, uffdioRegister, ptr(&arg)); err != nil {
			return errors.Join(fmt.Errorf("watch for faults in %#x-%#x: %w", m.Start, end(m), err), f.Close())
		}
		sp.windows = append(sp.windows, window{run{m.Start, end(m)}, m.Start})
	}
	if sp.drop, err = s.guard(f); err != nil {
		return errors.Join(err, f.Close())
	}
	fl := &filler{s: s, id: t.ID, pulling: map[uint64]bool{}, spaces: []*lazySpace{sp}}
	fl.ctx, fl.stop = context.WithCancel(context.Background())
	l.filler = fl
	go fl.serve(sp)
	return nil
}

// lazyUserFault opens a userfaultfd of the task's memory which also sees faults
// of the kernel on its behalf. That needs a privilege that the task does not have
// (userfaultfd(2)), or the device, which the engine opens.
func lazyUserFault(t *target.Task) (*os.File, error) {
	dev, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	fds, err := t.Accept([]*os.File{dev})
	if err != nil {
		return nil, err
	}
	p := t.Plan()
	n := p.Open(tracer.Syscall(unix.SYS_IOCTL, uint64(fds[0]), uffdNew, unix.O_CLOEXEC|unix.O_NONBLOCK))
	if err := p.Run(); err != nil {
		return nil, fmt.Errorf("open a userfaultfd: %w", err)
	}
	fd, err := takeDescriptor(t, n)
	p = t.Plan()
	p.Close(n)
	p.Close(fds[0])
	if e := p.Run(); err != nil {
		return nil, errors.Join(err, e)
	} else if e != nil {
		return nil, errors.Join(e, unix.Close(fd))
	}
	// Before the runtime's poller sees it: it would find an error.
	api := uffdioAPIArg{api: uffdAPI, features: uffdFeatureEventFork | uffdFeatureEventRemap | uffdFeatureEventRemove | uffdFeatureEventUnmap}
	if err := ioctl(fd, uffdioAPI, ptr(&api)); err != nil {
		return nil, errors.Join(fmt.Errorf("UFFDIO_API: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "userfaultfd"), nil
}

// takeDescriptor takes over a descriptor of the task.
func takeDescriptor(t *target.Task, fd int) (int, error) {
	pidfd, err := unix.PidfdOpen(t.Pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("take descriptor %d of the task: %w", fd, err)
	}
	return n, nil
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

// event is a struct uffd_msg.
type event struct {
	kind    byte
	a, b, c uint64
}

func decodeEvent(msg []byte) event {
	return event{msg[0], leUint64(msg[8:]), leUint64(msg[16:]), leUint64(msg[24:])}
}

func (fl *filler) handle(sp *lazySpace, e event) {
	switch e.kind {
	case uffdEventPagefault:
		fl.fault(sp, e.b&^(pageSize-1))
	case uffdEventFork:
		child := &lazySpace{
			f: os.NewFile(uintptr(uint32(e.a)), "userfaultfd"), missing: append(pageSet(nil), sp.missing...), windows: append([]window(nil), sp.windows...),
		}
		if drop, err := fl.s.guard(child.f); err == nil {
			child.drop = drop // else it ends with the engine: nothing better can be had
		}
		fl.spaces = append(fl.spaces, child)
		go fl.serve(child)
	case uffdEventRemap:
		sp.move(e.a, e.b, e.c)
	case uffdEventRemove:
		sp.forget(run{e.a, e.b}, false)
	case uffdEventUnmap:
		sp.forget(run{e.a, e.b}, true)
	}
}

// origins are the source's addresses of what is at x now.
func (sp *lazySpace) origins(x run) (s pageSet) {
	for _, w := range sp.windows {
		start, stop := max(w.at.start, x.start), min(w.at.end, x.end)
		if start < stop {
			s = s.union(pageSet{{start - w.at.start + w.origin, stop - w.at.start + w.origin}})
		}
	}
	return s
}

// forget notes that the program has thrown pages away: they are zero from now
// on, or nothing at all.
func (sp *lazySpace) forget(x run, unmapped bool) {
	sp.missing = sp.missing.subtract(sp.origins(x))
	if !unmapped {
		return
	}
	var rest []window
	for _, w := range sp.windows {
		for _, r := range (pageSet{w.at}).subtract(pageSet{x}) {
			rest = append(rest, window{r, w.origin + r.start - w.at.start})
		}
	}
	sp.windows = rest
}

// move notes an mremap(2). What was at the new place was unmapped before, by an
// event of its own.
func (sp *lazySpace) move(from, to, length uint64) {
	x := run{from, from + length}
	var rest, moved []window
	for _, w := range sp.windows {
		for _, r := range (pageSet{w.at}).subtract(pageSet{x}) {
			rest = append(rest, window{r, w.origin + r.start - w.at.start})
		}
		start, stop := max(w.at.start, x.start), min(w.at.end, x.end)
		if start < stop {
			moved = append(moved, window{run{start - from + to, stop - from + to}, w.origin + start - w.at.start})
		}
	}
	sp.windows = append(rest, moved...)
}

// fault serves a page that somebody waits for.
func (fl *filler) fault(sp *lazySpace, at uint64) {
	page := run{at, at + pageSize}
	want := sp.origins(page).intersect(sp.missing)
	if len(want) == 0 {
		fl.zero(sp, page)
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

// zero gives a page that the source does not have either.
func (fl *filler) zero(sp *lazySpace, page run) {
	arg := struct {
		start, length, mode uint64
		zeroed              int64
	}{start: page.start, length: pageSize}
	err := control(sp.f, uffdioZeropag, ptr(&arg))
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EAGAIN) {
		// It is there meanwhile, or an event is to be read first: try again.
		wake := struct{ start, length uint64 }{page.start, pageSize}
		_ = control(sp.f, uffdioWake, ptr(&wake))
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
	for most := uint64(0); ; {
		part, at, ok := sp.lacks(r)
		if !ok {
			return nil
		}
		if most > 0 {
			part.end = min(part.end, part.start+most)
		}
		err := copyIn(sp.f, at, data[part.start-r.start:part.end-r.start])
		var done *copiedError
		switch {
		case err == nil:
			sp.missing = sp.missing.subtract(pageSet{part})
			most = 0
		case errors.As(err, &done):
			sp.missing = sp.missing.subtract(pageSet{{part.start, part.start + done.bytes}})
			switch {
			case errors.Is(done.err, unix.EAGAIN):
				fl.mu.Unlock()
				time.Sleep(20 * time.Microsecond)
				fl.mu.Lock()
			case errors.Is(done.err, unix.EEXIST):
				// The program was given a page here, and has it.
				skip := part.start + done.bytes
				sp.missing = sp.missing.subtract(pageSet{{skip, skip + pageSize}})
			case errors.Is(done.err, unix.ENOENT) && part.bytes() > pageSize:
				// One copy has to lie in one mapping, and mprotect(2) splits them.
				most = max(part.bytes()/2&^(pageSize-1), pageSize)
			case errors.Is(done.err, unix.ENOENT), errors.Is(done.err, unix.ESRCH), errors.Is(done.err, os.ErrClosed):
				// Unmapped, or ended: what is not there cannot be touched.
				sp.missing = sp.missing.subtract(pageSet{part})
			default:
				return fmt.Errorf("UFFDIO_COPY to %#x: %w", at, done.err)
			}
		}
	}
}

// lacks is the first part of r that is missing and has a place, and where that
// begins. What has no place is not missing any more.
func (sp *lazySpace) lacks(r run) (part run, at uint64, ok bool) {
	for _, m := range (pageSet{r}).intersect(sp.missing) {
		for _, w := range sp.windows {
			o := run{w.origin, w.origin + w.at.bytes()}
			start, stop := max(m.start, o.start), min(m.end, o.end)
			if start < stop {
				return run{start, stop}, w.at.start + start - w.origin, true
			}
		}
		sp.missing = sp.missing.subtract(pageSet{m})
	}
	return run{}, 0, false
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
