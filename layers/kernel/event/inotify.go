// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// watchMask are the bits of a watch that the kernel keeps and takes.
const watchMask = unix.IN_ALL_EVENTS | unix.IN_EXCL_UNLINK | unix.IN_ONESHOT

// describeWatches finds the files that an inotify instance watches.
func (s *Subsystem) describeWatches(d *target.Descriptor) ([]*state.FileWatch, error) {
	var files []sought
	for _, w := range d.Info.Inotify {
		files = append(files, sought{watchedFile{w.Dev, w.Ino}, w.Handle})
	}
	paths, err := s.find(files)
	if err != nil {
		return nil, err
	}
	var out []*state.FileWatch
	for _, w := range d.Info.Inotify {
		path := paths[watchedFile{w.Dev, w.Ino}]
		if path == "" {
			return nil, &refusal{
				"inotify instance", fmt.Sprintf("the file of its watch %d, inode %d on device %d:%d, is not found by any name in the container: it was removed, or is hidden by a mount", w.WD, w.Ino, w.Dev.Major, w.Dev.Minor),
				"remove the watch before the checkpoint",
			}
		}
		out = append(out, &state.FileWatch{Number: uint32(w.WD), Mask: w.Mask & watchMask, Path: path})
	}
	slices.SortFunc(out, func(a, b *state.FileWatch) int { return int(a.Number) - int(b.Number) })
	return out, nil
}

// describeFiles adds what an inotify instance watches, and whether events wait.
func (s *Subsystem) describeFiles(d *target.Descriptor, m *state.EventFiles) (err error) {
	if m.Watch, err = s.describeWatches(d); err != nil {
		return err
	}
	m.Overflow, err = unreadEvents(d)
	return err
}

// unreadEvents reports whether events wait to be read.
func unreadEvents(d *target.Descriptor) (bool, error) {
	own, err := target.Duplicated(d)
	if err != nil {
		return false, err
	}
	defer own.Close()
	n, err := unix.IoctlGetInt(int(own.Fd()), unix.TIOCINQ)
	return n > 0, os.NewSyscallError("ioctl(FIONREAD)", err)
}

const (
	// maxWatches bounds the watches of one instance, far above the kernel's
	// default of all of a user's (fs.inotify.max_user_watches).
	maxWatches = 1 << 20
	// setNextWatch is INOTIFY_IOC_SETNEXTWD of include/uapi/linux/inotify.h
	// (CONFIG_CHECKPOINT_RESTORE).
	setNextWatch = 0x40044900
)

func checkFiles(m *state.EventFiles) error {
	if len(m.Watch) > maxWatches {
		return fmt.Errorf("%d watches", len(m.Watch))
	}
	last := uint32(0)
	for _, w := range m.Watch {
		if w.Number <= last || w.Number >= 1<<31-1 || w.Mask&^uint32(watchMask) != 0 || w.Mask&unix.IN_ALL_EVENTS == 0 {
			return fmt.Errorf("watch %d behind %d with mask %#x", w.Number, last, w.Mask)
		}
		if err := target.CheckPath("watched path", w.Path); err != nil {
			return err
		}
		last = w.Number
	}
	return nil
}

// watchesPerPlan is how many watches one batch adds: their paths have to fit.
const watchesPerPlan = 64

// watch adds the watches of the process's inotify instances, and the marks of its
// fanotify groups, when every file is
// open: nothing that an import does is an event for them.
func (s *Subsystem) watch(id record.ProcessID) error {
	t, err := s.env.Frame.Stopped(id)
	if err != nil {
		return err
	}
	for _, desc := range s.mine(id) {
		switch m := s.in[desc].(type) {
		case *state.EventFiles:
			err = watchFiles(t, t.Table.Slots(desc)[0].FD, m)
		case *state.EventGroup:
			err = watchMarks(t, t.Table.Slots(desc)[0].FD, m)
		}
		if err != nil {
			return fmt.Errorf("process %d: %w", id, err)
		}
	}
	return nil
}

// watchFiles gives an inotify instance its watches.
func watchFiles(t *target.Task, fd int, m *state.EventFiles) error {
	if m.Overflow {
		if err := overflow(t, fd); err != nil {
			return fmt.Errorf("have the reader of descriptor %d told of an overflow: %w", fd, err)
		}
	}
	for part := range slices.Chunk(m.Watch, watchesPerPlan) {
		if err := addWatches(t, fd, part); err != nil {
			return fmt.Errorf("inotify instance at descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// addWatches adds watches under their numbers. Paths lead to the files
// themselves: a symbolic link at their end is what is watched.
func addWatches(t *target.Task, fd int, list []*state.FileWatch) error {
	p := t.Plan()
	p.NarrowFiles()
	for _, w := range list {
		p.Call(tracer.Syscall(unix.SYS_IOCTL, uint64(fd), setNextWatch, uint64(w.Number)))
		p.Expect(tracer.Syscall(unix.SYS_INOTIFY_ADD_WATCH, uint64(fd), p.PutString(w.Path), uint64(w.Mask|unix.IN_DONT_FOLLOW)), int64(w.Number))
	}
	p.WidenFiles()
	if err := p.Run(); err != nil {
		return fmt.Errorf("watch files (from %s on): %w (are they there, may the container's user read them, and is fs.inotify.max_user_watches large enough?)", list[0].Path, err)
	}
	return nil
}

// overflow fills the queue of an instance that watches nothing yet, so that the
// kernel ends it by an overflow, and takes all before that. Equal events behind
// each other are one, so reads and writes of a file of our own take turns.
func overflow(t *target.Task, fd int) error {
	most, err := maxQueued()
	if err != nil {
		return err
	}
	own, err := t.Duplicate(fd)
	if err != nil {
		return err
	}
	defer own.Close()
	inotify := int(own.Fd())
	memfd, err := unix.MemfdCreate("mig", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(memfd)
	// The kernel tells nobody of what is done by the first descriptor (Linux 6.14).
	name := fmt.Sprintf("/proc/self/fd/%d", memfd)
	file, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(file)
	w, err := unix.InotifyAddWatch(inotify, name, unix.IN_ACCESS|unix.IN_MODIFY)
	if err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	var b [1]byte
	for i := 0; i <= most && err == nil; i++ {
		if i%2 == 0 {
			_, err = unix.Pwrite(file, b[:], 0)
		} else {
			_, err = unix.Pread(file, b[:], 0)
		}
	}
	if err != nil {
		return err
	}
	// The queue is full: nobody is told of this.
	if _, err := unix.InotifyRmWatch(inotify, uint32(w)); err != nil {
		return os.NewSyscallError("inotify_rm_watch", err)
	}
	return drain(inotify, most*unix.SizeofInotifyEvent)
}

// drain reads n bytes of events that have no names. One is left behind them.
func drain(inotify, n int) error {
	have, err := unix.IoctlGetInt(inotify, unix.TIOCINQ)
	if err != nil {
		return os.NewSyscallError("ioctl(FIONREAD)", err)
	}
	if have != n+unix.SizeofInotifyEvent {
		return fmt.Errorf("%d bytes of events are there, not %d and an overflow", have, n)
	}
	buf := make([]byte, 1<<16)
	for n > 0 {
		got, err := unix.Read(inotify, buf[:min(len(buf), n)])
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		n -= got
	}
	return nil
}

// maxQueued is how many events an instance holds that is made now.
func maxQueued() (int, error) {
	return readLimit("/proc/sys/fs/inotify/max_queued_events")
}

func readLimit(name string) (int, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
