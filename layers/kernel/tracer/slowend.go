// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package tracer

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// EndSlowly makes the tracer's thread, whenever and however it ends, wait for every
// processor between the moment when its guards say that it is gone and the one when
// the kernel lets its tracees go. It takes about half a millisecond, its end as much
// longer, and several times that where the processors have much to do. So it should be
// called before anything is stopped; a tracer whose process is under a filter calls it if
// nobody has. It needs Linux 6.15. An error leaves a thread that ends as fast as any,
// and is the same next time.
//
// The wait is the kernel's own. An overlay that is the thread's working directory,
// and nothing else to anybody, goes when the thread's file system state does
// (exit_fs in do_exit, kernel/exit.c: behind exit_mm, before exit_notify). Before an
// overlay lets its layers go it waits for an expedited grace period of RCU
// (ovl_free_fs in fs/overlayfs, kern_unmount_array in fs/namespace.c): each processor
// is interrupted and has to answer. One that a hypervisor has taken away between a
// thread's look at its guard and its system call answers when it is back, at that very
// instruction, and makes the call while others still clean up. It could be taken away
// again just behind its answer. So there are two overlays, one in the other, and two
// rounds of answers: who gave the second one at that instruction would have been held
// up there twice in a row.
func (t *Tracer) EndSlowly() error {
	return t.Do(func() error {
		if !t.slow.tried {
			t.slow.tried = true
			if t.slow.err = slowEnd(t.tid); t.slow.err != nil {
				slog.Debug("a thread whose filter kills may die with the engine", "error", t.slow.err)
			}
		}
		return t.slow.err
	})
}

// slowness is what became of EndSlowly.
type slowness struct {
	tried bool
	err   error
}

// slowEnd is EndSlowly in thread tid, the caller's, which shares its working directory
// with nobody from then on. Nothing is mounted in any namespace.
func slowEnd(tid int) error {
	if tid == unix.Getpid() {
		return errors.New("the process's first thread keeps its working directory, which is the process's")
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare(CLONE_FS)", err)
	}
	base, err := detached("tmpfs", -1)
	if err != nil {
		return err
	}
	defer unix.Close(base)
	for _, d := range []string{"a", "b", "a/a", "a/b"} {
		if err := unix.Mkdirat(base, d, 0o700); err != nil {
			return os.NewSyscallError("mkdirat", err)
		}
	}
	inner, err := detached("overlay", base)
	if err != nil {
		return err
	}
	defer unix.Close(inner)
	outer, err := detached("overlay", inner)
	if err != nil {
		return err
	}
	defer unix.Close(outer)
	return os.NewSyscallError("fchdir", unix.Fchdir(outer))
}

// detached makes a file system that is mounted nowhere and returns its root, which is
// the caller's: an empty one, or an overlay of the directories a and b in below.
func detached(kind string, below int) (int, error) {
	made, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", kind, err)
	}
	defer unix.Close(made)
	if below >= 0 {
		layers := fmt.Sprintf("/proc/self/fd/%d/a:/proc/self/fd/%[1]d/b", below)
		if err := unix.FsconfigSetString(made, "lowerdir", layers); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", kind, err)
		}
	}
	if err := unix.FsconfigCreate(made); err != nil {
		return -1, fmt.Errorf("fsconfig %s: %w", kind, err)
	}
	const attributes = unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	fd, err := unix.Fsmount(made, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w", kind, err)
	}
	return fd, nil
}
