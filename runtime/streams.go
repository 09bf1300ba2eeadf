// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"

	"golang.org/x/sys/unix"
)

// Stream identifies what the init process was given as one of its standard
// streams, by fstat(2); the zero value stands for none (/dev/null, or a
// terminal, which is made inside the container). A checkpoint needs it to tell
// the container's own files from those that belong to whoever runs it.
type Stream struct {
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
}

// Streams are those of the init process, descriptors 0 to 2.
func (c *Container) Streams() [3]Stream { return c.streams }

// streamsOf looks at the files that a process is to get.
func streamsOf(s Stdio) (out [3]Stream) {
	if s.Terminal {
		return out
	}
	for i, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f == nil {
			continue
		}
		raw, err := f.SyscallConn()
		if err != nil {
			continue // closed: the launch reports it
		}
		_ = raw.Control(func(fd uintptr) {
			var st unix.Stat_t
			if unix.Fstat(int(fd), &st) == nil {
				out[i] = Stream{Dev: st.Dev, Ino: st.Ino}
			}
		})
	}
	return out
}
