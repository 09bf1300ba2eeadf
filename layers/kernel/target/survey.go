// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
	"github.com/io-mig/mig/spec/record"
)

// Look lists the descriptors of a process that may run, with those that threads have
// of their own, through /proc alone: nothing in the process is touched. Descriptors have no identity
// (Description) and may be gone already. A process that has gone has none.
func (s *Source) Look(pid int) ([]Descriptor, error) {
	tables, err := s.tables(s.proc.Process(pid))
	if procfs.IsGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for descriptor tables of threads of pid %d: %w", pid, err)
	}
	var out []Descriptor
	for i, t := range tables {
		list, err := s.lookAt(t)
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", t.Pid(), err)
		}
		for j := range list {
			if i > 0 {
				list[j].Thread = t.Pid()
			}
		}
		out = append(out, list...)
	}
	return out, nil
}

// lookAt lists one table. What is gone has no descriptors.
func (s *Source) lookAt(t procfs.Task) ([]Descriptor, error) {
	fds, err := t.FDs()
	if procfs.IsGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the descriptors: %w", err)
	}
	out := make([]Descriptor, 0, len(fds))
	for _, fd := range fds {
		d, err := s.look(t, fd)
		if procfs.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("fd %d: %w", fd, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// RootPath is where the engine finds path of the process's mount namespace.
// It is for looking only: an absolute symbolic link on the way leads out.
func RootPath(pid int, path string) string { return fmt.Sprintf("/proc/%d/root%s", pid, path) }

// kcmpEpollTarget is KCMP_EPOLL_TFD of include/uapi/linux/kcmp.h.
const kcmpEpollTarget = 7

// WatchedBy reports whether the descriptor is the file that an epoll instance
// has registered under number tfd; nth counts the registrations with that number
// in the order of fdinfo. A registration that has ended meanwhile is an error
// that wraps ENOENT.
func (d *Descriptor) WatchedBy(poll *Descriptor, tfd, nth int) (bool, error) {
	slot := struct{ epfd, tfd, offset uint32 }{uint32(poll.FD), uint32(tfd), uint32(nth)}
	n, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(d.Holder), uintptr(poll.Holder), kcmpEpollTarget, uintptr(d.FD), uintptr(unsafe.Pointer(&slot)), 0)
	if e != 0 {
		return false, os.NewSyscallError("kcmp(KCMP_EPOLL_TFD)", e)
	}
	return n == 0, nil
}

// SharesWith reports whether two tasks share resource r.
func SharesWith(tid1, tid2 int, r Resource) (bool, error) {
	n, err := kcmp(tid1, tid2, r, 0, 0)
	return n == 0, err
}

// SharesDirectories reports whether a stopped process has its working directory,
// root and umask in common with one that comes before it.
func (p *Process) SharesDirectories() bool { return p.relation.common.Directories }

// SharesTable is the same for its descriptor table.
func (p *Process) SharesTable() bool { return p.relation.common.Table }

// Survey asks fn about every process while they run and collects what it finds.
// What it says about a process that has ended by then, or is ending, does not
// count: nothing of that will be in an image.
func (s *Source) Survey(ctx context.Context, fn func(procfs.Task) ([]record.Finding, error)) ([]record.Finding, error) {
	pids, err := s.Pids()
	if err != nil {
		return nil, err
	}
	var out []record.Finding
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t := s.proc.Process(pid)
		found, err := fn(t)
		if procfs.IsGone(err) || (err != nil || len(found) > 0) && ending(t) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pid %d: %w", pid, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// ending: the process is dead, or its last thread is about to be.
func ending(t procfs.Task) bool {
	st, err := t.Status()
	return err != nil || !st.HasMM && st.Threads <= 1
}
