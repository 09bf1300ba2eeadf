// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// Descriptor is one entry of a source process's descriptor table.
type Descriptor struct {
	// FD is its number in the table of Holder, a task by its id: the process
	// itself, or the engine for a description that is on its way to somebody in
	// the queue of a unix socket (InFlight) and has no number in the container.
	// Thread is Holder where the table is one that some threads have and the process
	// has not: the first of them.
	FD       int
	Holder   int
	Thread   int
	InFlight bool
	// CloseOnExec is the descriptor's own flag, Flags are those of the open
	// file description (O_* as open(2) has them, O_CLOEXEC removed).
	CloseOnExec bool
	Flags       int
	// Link is what /proc/PID/fd/FD points to.
	Link procfs.FDLink
	// Description is the event's id of the open file description: descriptors
	// made from each other by dup(2), fork(2) or SCM_RIGHTS have equal ids.
	Description uint64
	// First: nobody in this event has seen the description before. Whoever
	// exports descriptions of its kind exports it now.
	First bool
	// Stdio is 0, 1 or 2 if the description leads to the container's standard
	// input, output or error, which belong to the shim, else -1.
	Stdio int
	// Info is /proc/PID/fdinfo/FD.
	Info procfs.FDInfo
	// Stat is stat(2) of the file, as the engine sees it.
	Stat unix.Stat_t
}

// Path is the descriptor's magic link in /proc.
func (d *Descriptor) Path() string {
	return procfs.Host().Process(d.Holder).Path(fmt.Sprintf("fd/%d", d.FD))
}

// Descriptors lists the process's descriptor table in ascending order, behind it
// those that threads have of their own (Descriptor.Thread), and then what is on its
// way in the queues of its sockets and was not seen before. The process must be stopped; the list is made once and kept until it
// runs again.
func (p *Process) Descriptors() ([]Descriptor, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.descriptors != nil {
		return p.descriptors, nil
	}
	apart, err := p.findApart()
	if err != nil {
		return nil, fmt.Errorf("look for descriptor tables of threads of pid %d: %w", p.Pid, err)
	}
	out, err := p.listTable(p.Proc, 0)
	if err != nil {
		return nil, err
	}
	for _, a := range apart {
		if a.Table != a.Tid {
			continue
		}
		list, err := p.listTable(p.source.proc.Process(a.Tid), a.Tid)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	if out, err = p.addInFlight(out); err != nil {
		return nil, err
	}
	p.descriptors = out
	return out, nil
}

// listTable lists the table of the process, or of a thread that has its own.
func (p *Process) listTable(task procfs.Task, thread int) ([]Descriptor, error) {
	fds, err := task.FDs()
	if err != nil {
		return nil, fmt.Errorf("list the descriptors of pid %d: %w", task.Pid(), err)
	}
	out := make([]Descriptor, len(fds))
	for i, fd := range fds {
		if out[i], err = p.descriptor(task, fd); err != nil {
			return nil, fmt.Errorf("pid %d: fd %d: %w", task.Pid(), fd, err)
		}
		out[i].Thread = thread
	}
	return out, p.askCloseOnExec(out, thread)
}

// by is the thread that makes calls with descriptors of a table: the leader, or the
// thread whose own it is. nil if that has ended.
func (p *Process) by(thread int) *tracer.Thread {
	if thread == 0 {
		return p.Traced.Leader()
	}
	for _, th := range p.Traced.Threads() {
		if th.Tid == thread {
			return th
		}
	}
	return nil
}

// askCloseOnExec asks the process for the flags of descriptors where /proc does
// not tell them: of files that the kernel opened with O_CLOEXEC among their own
// flags, as those of ioctl(TIOCGPTPEER), by which runtimes open a container's
// terminal, and of epoll_create1(2), fdinfo shows it for every descriptor
// (seq_show of fs/proc/fd.c).
func (p *Process) askCloseOnExec(list []Descriptor, thread int) error {
	var calls []tracer.Call
	var of []*Descriptor
	for i := range list {
		if d := &list[i]; d.CloseOnExec && (d.Terminal() || d.Link.Kind == procfs.FDEpoll) {
			of = append(of, d)
			calls = append(calls, tracer.Syscall(unix.SYS_FCNTL, uint64(d.FD), unix.F_GETFD))
		}
	}
	if len(calls) == 0 {
		return nil
	}
	if p.Traced == nil {
		return ErrNotStopped
	}
	th := p.by(thread)
	if th == nil {
		return fmt.Errorf("thread %d of pid %d: %w", thread, p.Pid, tracer.ErrExited)
	}
	err := p.Traced.Run(th, calls)
	if err == nil {
		err = tracer.Check(calls)
	}
	if err != nil {
		return fmt.Errorf("ask pid %d for the flags of descriptors: %w", p.Pid, err)
	}
	for i, d := range of {
		d.CloseOnExec = calls[i].Ret&unix.FD_CLOEXEC != 0
	}
	return nil
}

func (p *Process) descriptor(task procfs.Task, fd int) (Descriptor, error) {
	d, err := p.source.look(task, fd)
	if err != nil {
		return d, err
	}
	d.Description, d.First, err = p.source.files.id(ResourceFile, linkClass(d.Link), task.Pid(), uintptr(fd))
	return d, err
}

// look reads what /proc tells about one descriptor.
func (s *Source) look(t procfs.Task, fd int) (Descriptor, error) {
	d := Descriptor{FD: fd, Holder: t.Pid(), Stdio: -1}
	var err error
	if d.Link, err = t.FDLink(fd); err != nil {
		return d, err
	}
	if d.Info, err = t.FDInfo(fd); err != nil {
		return d, err
	}
	if err = unix.Stat(d.Path(), &d.Stat); err != nil {
		return d, fmt.Errorf("stat: %w", err)
	}
	d.CloseOnExec = d.Info.Flags&unix.O_CLOEXEC != 0
	d.Flags = int(d.Info.Flags) &^ unix.O_CLOEXEC
	d.Stdio = s.stdioIndex(&d.Stat)
	return d, nil
}

// Duplicate is a descriptor of the engine's that shares its open file
// description with the application's. It is no os.File: that would register
// the application's file with the Go runtime's epoll, and may change its flags.
type Duplicate struct{ fd int }

// Fd is the descriptor's number, valid until Close.
func (d *Duplicate) Fd() uintptr { return uintptr(d.fd) }

// Close closes it. The application's own descriptor stays open.
func (d *Duplicate) Close() error { return unix.Close(d.fd) }

// OpenDescriptor duplicates descriptor fd of the source process into this one
// (pidfd_getfd(2), Linux 5.6). The duplicate shares the open file description:
// moving its offset or changing its flags changes the application's. The
// caller closes it.
func (p *Process) OpenDescriptor(fd int) (*Duplicate, error) {
	n, err := unix.PidfdGetfd(p.pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor %d of pid %d: %w", fd, p.Pid, err)
	}
	return &Duplicate{n}, nil
}

// Open is OpenDescriptor for one of Descriptors, wherever it is.
func (p *Process) Open(d *Descriptor) (*Duplicate, error) {
	if d.Thread != 0 {
		return duplicate(d.Thread, d.FD)
	}
	if !d.InFlight {
		return p.OpenDescriptor(d.FD)
	}
	n, err := unix.FcntlInt(uintptr(d.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor that is on its way: %w", err)
	}
	return &Duplicate{n}, nil
}

// Duplicated is Open while the process may run.
func Duplicated(d *Descriptor) (*Duplicate, error) { return duplicate(d.Holder, d.FD) }

// stdioIndex finds out whether a descriptor is one of the container's standard
// streams: the same pipe, terminal or socket that the shim handed to its init.
func (s *Source) stdioIndex(st *unix.Stat_t) int {
	for i, f := range s.Stdio {
		if f.Dev == st.Dev && f.Ino == st.Ino && f.Ino != 0 {
			return i
		}
	}
	return -1
}

// StdioFile identifies what the shim gave the container as one of its standard
// streams. The zero value means none of the shim's (for example /dev/null).
type StdioFile struct {
	Dev, Ino uint64
}

// ErrNotStopped is what asks for state of a process that was not set up.
var ErrNotStopped = errors.New("the process is not stopped by this event")

// linkClass groups descriptions that may be one: equal links.
func linkClass(l procfs.FDLink) string {
	return fmt.Sprintf("%d:%d:%s:%s", l.Kind, l.Inode, l.Path, l.Name)
}
