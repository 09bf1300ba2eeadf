// SPDX-License-Identifier: Apache-2.0

package event

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/spec/state"
)

// overflowGroup fills the queue of a fanotify group that has no marks yet, so
// that the kernel ends it by an overflow, and takes all before that. The kernel
// makes one event of all of the same file, so each is of another one, on a file
// system of our own that nobody else sees.
func overflowGroup(t *target.Task, fd int, m *state.EventGroup) error {
	most, err := maxGroupQueue()
	if err != nil {
		return err
	}
	own, err := t.Duplicate(fd)
	if err != nil {
		return err
	}
	defer own.Close()
	return fillGroup(int(own.Fd()), most, m.Init&fidFlags != 0)
}

// maxGroupQueue is how many events a group holds that is made now. Before Linux
// 5.13 it is not shown, and always the same.
func maxGroupQueue() (int, error) {
	most, err := readLimit("/proc/sys/fs/fanotify/max_queued_events")
	if errors.Is(err, fs.ErrNotExist) {
		return 16384, nil
	}
	return most, err
}

// fillGroup leaves an overflow, and nothing else, in a group that holds most
// events. Of a group that tells files by their ids (which may be those of
// directories alone) directories are opened; another one would open them in turn,
// which fails if it opens for writing.
func fillGroup(group, most int, ids bool) error {
	dir, err := privateDirectory()
	if err != nil {
		return fmt.Errorf("a file system of our own: %w", err)
	}
	defer unix.Close(dir)
	const add, remove = unix.FAN_MARK_ADD, unix.FAN_MARK_REMOVE
	const opened = unix.FAN_OPEN | unix.FAN_EVENT_ON_CHILD | unix.FAN_ONDIR
	if err := unix.FanotifyMark(group, add, opened, dir, ""); err != nil {
		return os.NewSyscallError("fanotify_mark", err)
	}
	for i := range most + 1 {
		// Names of one length: so are the events.
		if err := openNew(dir, fmt.Sprintf("%08x", i), ids); err != nil {
			return err
		}
	}
	if err := unix.FanotifyMark(group, remove, opened, dir, ""); err != nil {
		return os.NewSyscallError("fanotify_mark", err)
	}
	return drainGroup(group, most)
}

// openNew makes a file or directory and opens it.
func openNew(dir int, name string, directory bool) error {
	how := unix.O_CREAT | unix.O_RDWR | unix.O_CLOEXEC
	if directory {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
		how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	}
	fd, err := unix.Openat(dir, name, how, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

// privateDirectory is the root of an empty tmpfs that is mounted nowhere.
func privateDirectory() (int, error) {
	made, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(made)
	// Its files are empty, but each needs an inode: as many as it takes.
	err = errors.Join(unix.FsconfigSetString(made, "nr_inodes", "0"), unix.FsconfigCreate(made))
	if err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	mount, err := unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	dir, err := unix.Openat(mount, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return dir, os.NewSyscallError("openat", err)
}

// drainedAtOnce bounds the descriptors that come along with what is read.
const drainedAtOnce = 64

// drainGroup reads n events, which are of one size. An overflow is left behind
// them.
func drainGroup(group, n int) error {
	size := binary.Size(unix.FanotifyEventMetadata{})
	buf := make([]byte, 1<<16)
	for n > 0 {
		ready := []unix.PollFd{{Fd: int32(group), Events: unix.POLLIN}}
		if got, err := unix.Poll(ready, 0); err != nil || got == 0 {
			return fmt.Errorf("%d events are missing, %w", n, cmp.Or(err, error(unix.EAGAIN)))
		}
		got, err := unix.Read(group, buf[:size*min(n, drainedAtOnce)])
		if errors.Is(err, unix.EINVAL) && size < len(buf)/drainedAtOnce {
			size += 4 // too small for one event: all sizes are multiples of four
			continue
		}
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		taken, err := eachEvent(buf[:got], closeAny)
		if err != nil {
			return err
		}
		n -= taken
	}
	left, err := unix.IoctlGetInt(group, unix.TIOCINQ)
	if err != nil {
		return os.NewSyscallError("ioctl(FIONREAD)", err)
	}
	if n != 0 || left == 0 {
		return fmt.Errorf("%d events are missing, %d bytes are left: not an overflow alone", n, left)
	}
	return nil
}

// eachEvent counts events and calls fn for the descriptors that came with them,
// negative ones included.
func eachEvent(b []byte, fn func(fd int32)) (n int, err error) {
	const header = unix.FAN_EVENT_METADATA_LEN
	le := binary.NativeEndian
	for ; len(b) >= header; n++ {
		size := int(le.Uint32(b))
		if size < header || size > len(b) {
			return n, fmt.Errorf("an event of %d bytes", size)
		}
		if le.Uint64(b[8:])&unix.FAN_Q_OVERFLOW != 0 {
			return n, errors.New("the overflow came too early")
		}
		fn(int32(le.Uint32(b[16:])))
		for info := b[header:size]; len(info) >= 4; {
			length := int(le.Uint16(info[2:]))
			if length < 4 || length > len(info) {
				return n, fmt.Errorf("information of %d bytes", length)
			}
			if info[0] == unix.FAN_EVENT_INFO_TYPE_PIDFD && length >= 8 {
				fn(int32(le.Uint32(info[4:])))
			}
			info = info[length:]
		}
		b = b[size:]
	}
	return n, nil
}

// closeAny closes a descriptor; negative ones are none.
func closeAny(fd int32) {
	if fd >= 0 {
		_ = unix.Close(int(fd))
	}
}
