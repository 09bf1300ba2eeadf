// SPDX-License-Identifier: Apache-2.0

package filetree

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// asRoot runs fn as the root of a user namespace, as far as files are concerned:
// a file system that was mounted there takes none of an owner that it cannot
// express (EOVERFLOW, see mknod(2) and path_resolution(7)). Capabilities stay
// those of the engine. fn must not start goroutines that need it.
func asRoot(ids IDs, fn func() error) error {
	if ids.UID == nil {
		return fn()
	}
	uid, ok1 := outer(ids.UID, 0)
	gid, ok2 := outer(ids.GID, 0)
	if !ok1 || !ok2 {
		return fn() // it has no root that could own anything
	}
	runtime.LockOSThread()
	var header = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("capget", err)
	}
	// A thread whose ids could not be put back ends with its goroutine.
	err := fileUser(int(uid), int(gid), &header, &caps)
	if err == nil {
		err = fn()
	}
	back := fileUser(unix.Geteuid(), unix.Getegid(), &header, &caps)
	if back == nil {
		runtime.UnlockOSThread()
	}
	return errors.Join(err, back)
}

// fileUser sets the ids that files are made with, and then the capabilities: a
// change from or to root changes the effective ones (capabilities(7)).
func fileUser(uid, gid int, header *unix.CapUserHeader, caps *[2]unix.CapUserData) error {
	for _, c := range []struct {
		nr uintptr
		id int
	}{{unix.SYS_SETFSGID, gid}, {unix.SYS_SETFSUID, uid}} {
		// Both return the id that was in force, and no error.
		_, _, _ = unix.RawSyscall(c.nr, uintptr(c.id), 0, 0)
		if now, _, _ := unix.RawSyscall(c.nr, ^uintptr(0), 0, 0); int(now) != c.id {
			return fmt.Errorf("become user %d and group %d for files: %w", uid, gid, unix.EPERM)
		}
	}
	return os.NewSyscallError("capset", unix.Capset(header, &caps[0]))
}
