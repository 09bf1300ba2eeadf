// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// lazySpace is one address space some of whose pages have not come.
//
// Its books are exact when everything was told that has happened. From the moment
// of a change until its event was read, the kernel refuses to fill pages (EAGAIN).
// But it looks for the mapping of a page first and for changes then (Linux 6.9,
// mm/userfaultfd.c): that a page has no mapping (ENOENT) may be the consequence of
// a change of which nothing was told yet. So whatever is concluded from an error
// has to be asked again: see changing.
type lazySpace struct {
	f *os.File // its userfaultfd
	// drop ends the holding of a duplicate by whoever outlives the engine: the
	// kernel makes pages up as soon as nobody has a userfaultfd open any more.
	drop func() error
	books
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
	pidfd, err := target.Pidfd(t.Pid)
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

// event is a struct uffd_msg.
type event struct {
	kind    byte
	a, b, c uint64
}

func decodeEvent(msg []byte) event {
	return event{msg[0], leUint64(msg[8:]), leUint64(msg[16:]), leUint64(msg[24:])}
}

// changing reports whether the program's mappings are being changed, or were, and
// the event was not read. If not, and no event was read since, nothing has changed
// before: the kernel looks at its count of changes before it looks at what it is
// asked for, which is nothing (fs/userfaultfd.c, userfaultfd_copy).
func (sp *lazySpace) changing() bool {
	return errors.Is(control(sp.f, uffdioCopy, ptr(&uffdioCopyArg{})), unix.EAGAIN)
}

// wake has whoever waits for pages in r look again. Who waits for a page waits at
// the address at which it was.
func (sp *lazySpace) wake(r run) {
	arg := struct{ start, length uint64 }{r.start, r.bytes()}
	_ = control(sp.f, uffdioWake, ptr(&arg))
}

// zero gives a page that the source does not have either. Where it cannot, because
// something has happened meanwhile, whoever waits for the page looks again.
func (sp *lazySpace) zero(page run) {
	if _, err := zeroIn(sp.f, page.start, pageSize); err != nil {
		sp.wake(page)
	}
}

// supply fills missing pages from at on, and returns how many bytes it has filled.
// Pages that hold nothing at the source, as far as a whole record does, take none here.
func (sp *lazySpace) supply(at uint64, data []byte) (uint64, error) {
	if blank(data) {
		return zeroIn(sp.f, at, uint64(len(data)))
	}
	return copyIn(sp.f, at, data)
}
