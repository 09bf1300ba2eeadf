// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/state"
)

// fastFrom is the length of a record's pages from which it pays to open a
// fill: two remote batches.
const fastFrom = 1 << 20

// fill writes pages of anonymous memory by UFFDIO_COPY (userfaultfd(2),
// ioctl_userfaultfd(2)): the kernel copies straight into a new page, which it
// need not clear first and need not find again, as process_vm_writev(2) does.
// The pages are charged to the task's memory cgroup either way. What is not
// registered with it is written by process_vm_writev.
type fill struct {
	// mu is held by writers for reading: a page that is missing in a registered
	// mapping cannot be written the other way any more.
	mu   sync.RWMutex
	once bool
	fd   int // the userfaultfd, -1: this system has none for us
	// registered are the mappings that it serves, in the layout's order.
	registered []*state.Mapping
}

// Of include/uapi/linux/userfaultfd.h.
const (
	uffdUserModeOnly         = 1
	uffdAPI                  = 0xaa
	uffdioAPI                = 0xc018aa3f // _IOWR(UFFDIO, 0x3f, struct uffdio_api)
	uffdioRegister           = 0xc020aa00 // _IOWR(UFFDIO, 0x00, struct uffdio_register)
	uffdioCopy               = 0xc028aa03 // _IOWR(UFFDIO, 0x03, struct uffdio_copy)
	uffdioRegisterModeMissed = 1
)

type uffdioAPIArg struct{ api, features, ioctls uint64 }

type uffdioRegisterArg struct{ start, length, mode, ioctls uint64 }

type uffdioCopyArg struct {
	dst    uint64
	src    *byte // a pointer, so that the runtime keeps and follows it
	len    uint64
	mode   uint64
	copied int64
}

// open makes the task open a userfaultfd, takes it over and registers what it
// can serve. Where the system refuses one, pages are written the other way.
func (f *fill) open(t *target.Task, l *layout) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.once {
		return nil
	}
	f.once, f.fd = true, -1
	todo := served(l.mappings)
	if len(todo) == 0 {
		return nil
	}
	// On the tracer's thread in one go: nobody else may use the number that the
	// descriptor has in the task for a moment.
	err := t.Traced.Do(func() error { return f.take(t) })
	if err != nil || f.fd < 0 {
		return err
	}
	return f.register(todo)
}

// served are the mappings that are filled so. Where the program or the
// system's administrator wants huge pages, they come only from a fault.
func served(mappings []*state.Mapping) []*state.Mapping {
	always := hugeAlways()
	var out []*state.Mapping
	for _, m := range mappings {
		if m.Backing == state.Backing_BACKING_ANONYMOUS && !wantsHuge(m, always) {
			out = append(out, m)
		}
	}
	return out
}

// wantsHuge: the mapping is to have huge pages. always is hugeAlways's.
func wantsHuge(m *state.Mapping, always bool) bool {
	return slices.Contains(m.Advice, unix.MADV_HUGEPAGE) || always && !slices.Contains(m.Advice, unix.MADV_NOHUGEPAGE)
}

// hugeAlways reads Documentation/admin-guide/mm/transhuge.rst's switch.
func hugeAlways() bool {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && strings.Contains(string(b), "[always]")
}

// take opens the descriptor in the task, for its address space, and keeps only
// a duplicate in the engine.
func (f *fill) take(t *target.Task) error {
	calls := []tracer.Call{tracer.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly)}
	if err := t.Traced.Run(t.Traced.Leader(), calls); err != nil {
		return fmt.Errorf("open a userfaultfd: %w", err)
	}
	if calls[0].Failed() {
		return nil
	}
	n := int(calls[0].Ret)
	pidfd, err := target.Pidfd(t.Pid)
	if err == nil {
		f.fd, err = unix.PidfdGetfd(pidfd, n, 0)
		unix.Close(pidfd)
	}
	if err != nil {
		f.fd = -1
		err = fmt.Errorf("take over the task's userfaultfd: %w", err)
	}
	return errors.Join(err, t.Run([]tracer.Call{tracer.Close(n)}))
}

func (f *fill) register(todo []*state.Mapping) error {
	api := uffdioAPIArg{api: uffdAPI}
	if err := ioctl(f.fd, uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return fmt.Errorf("UFFDIO_API: %w", err)
	}
	for _, m := range todo {
		arg := uffdioRegisterArg{start: m.Start, length: m.Length, mode: uffdioRegisterModeMissed}
		if err := ioctl(f.fd, uffdioRegister, unsafe.Pointer(&arg)); err != nil {
			return fmt.Errorf("UFFDIO_REGISTER of %#x-%#x: %w", m.Start, end(m), err)
		}
	}
	f.registered = todo
	return nil
}

// close gives the mappings back to the kernel's own faults.
func (f *fill) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd <= 0 { // never opened, or refused
		return nil
	}
	fd := f.fd
	f.fd, f.registered = -1, nil
	return unix.Close(fd)
}

// reset is close, after which it can be opened for other mappings.
func (f *fill) reset() error {
	err := f.close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.once = false
	return err
}

// write fills runs with data, one after another.
func (f *fill) write(pid int, runs []run, data []byte) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var rest []run // neighbours that go the other way in one call
	var from, at uint64
	flush := func() error {
		if len(rest) == 0 {
			return nil
		}
		err := writeRuns(pid, rest, data[from:at])
		rest = rest[:0]
		return err
	}
	for _, r := range runs {
		for r.start < r.end {
			stop, fast := f.covers(r)
			if part := (run{r.start, stop}); fast {
				if err := flush(); err != nil {
					return err
				}
				if err := f.copy(pid, part, data[at:at+part.bytes()]); err != nil {
					return err
				}
			} else {
				if len(rest) == 0 {
					from = at
				}
				rest = append(rest, part)
			}
			at, r.start = at+stop-r.start, stop
		}
	}
	return flush()
}

// covers returns how far r is served from its start on, or how far it is not.
func (f *fill) covers(r run) (stop uint64, fast bool) {
	i := sort.Search(len(f.registered), func(i int) bool { return end(f.registered[i]) > r.start })
	switch {
	case i == len(f.registered) || f.registered[i].Start >= r.end:
		return r.end, false
	case f.registered[i].Start > r.start:
		return f.registered[i].Start, false
	}
	return min(r.end, end(f.registered[i])), true
}

// copy fills one run that lies in one mapping. Pages that are there already,
// from an older version of their content, are written over.
func (f *fill) copy(pid int, r run, data []byte) error {
	most := r.bytes()
	for r.start < r.end {
		n := min(r.bytes(), most)
		arg := uffdioCopyArg{dst: r.start, src: &data[0], len: n}
		err := ioctl(f.fd, uffdioCopy, unsafe.Pointer(&arg))
		done := uint64(max(arg.copied, 0))
		if err == nil {
			done = n
		}
		r.start, data = r.start+done, data[done:]
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOENT) && n > pageSize:
			// One copy has to lie in one of the kernel's mappings; what was made in
			// pieces may be several.
			most = max(n/2&^(pageSize-1), pageSize)
		case errors.Is(err, unix.EEXIST):
			if err := writeRuns(pid, []run{{r.start, r.start + pageSize}}, data[:pageSize]); err != nil {
				return err
			}
			r.start, data = r.start+pageSize, data[pageSize:]
		default:
			return fmt.Errorf("UFFDIO_COPY to %#x-%#x of pid %d: %w", r.start, r.end, pid, err)
		}
	}
	return nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}
