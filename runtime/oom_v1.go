// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// oomV1 registers an eventfd for memory.oom_control
// (Documentation/admin-guide/cgroup-v1/memory.rst, section 10).
func oomV1(dir string) (next func() (bool, error), source *os.File, err error) {
	control, err := os.Open(filepath.Join(dir, "memory.oom_control"))
	if err != nil {
		return nil, nil, err
	}
	defer control.Close() // the registration keeps what it needs
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("eventfd: %w", err)
	}
	source = os.NewFile(uintptr(fd), "eventfd")
	register := filepath.Join(dir, "cgroup.event_control")
	if err := os.WriteFile(register, fmt.Appendf(nil, "%d %d", fd, control.Fd()), 0); err != nil {
		source.Close()
		return nil, nil, err
	}
	next = func() (bool, error) {
		var count [8]byte
		if _, err := io.ReadFull(source, count[:]); err != nil {
			return false, err
		}
		// Removing the cgroup signals the eventfd as well.
		if _, err := os.Lstat(register); err != nil {
			return false, err
		}
		return binary.NativeEndian.Uint64(count[:]) > 0, nil
	}
	return next, source, nil
}
