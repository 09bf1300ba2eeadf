// SPDX-License-Identifier: Apache-2.0

package target

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/procfs"
)

// ShmDevice is the device of the kernel's own file system of shared memory: that
// of memfds, shared anonymous memory and System V segments.
var ShmDevice = sync.OnceValues(func() (procfs.Dev, error) {
	fd, err := unix.MemfdCreate("mig", unix.MFD_CLOEXEC)
	if err != nil {
		return procfs.Dev{}, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return procfs.Dev{}, os.NewSyscallError("fstat", err)
	}
	return procfs.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}, nil
})

// AddSegment notes that the image's System V shared memory with this identifier
// has been made, with size bytes: tasks may attach it. Of anybody else's they
// must not.
func (f *Frame) AddSegment(id int32, size uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.segments == nil {
		f.segments = map[int32]uint64{}
	}
	f.segments[id] = size
}

// SegmentSize is the size in bytes of a segment that AddSegment was told of.
func (f *Frame) SegmentSize(id int32) (size uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size, ok = f.segments[id]
	return size, ok
}
