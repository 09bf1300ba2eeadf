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

// Segment is what an import has made of System V shared memory.
type Segment struct {
	// Size in bytes, of whole pages; Page that of its huge pages, 0 for small ones.
	Size, Page uint64
}

// AddSegment notes that the image's System V shared memory with this identifier
// has been made: tasks may attach it. Of anybody else's they must not.
func (f *Frame) AddSegment(id int32, g Segment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.segments == nil {
		f.segments = map[int32]Segment{}
	}
	f.segments[id] = g
}

// Segment is a segment that AddSegment was told of.
func (f *Frame) Segment(id int32) (g Segment, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, ok = f.segments[id]
	return g, ok
}
