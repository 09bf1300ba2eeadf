// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// bufferSize is half of a pipe's default capacity (pipe(7)).
const bufferSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// copyAll copies until src ends. If dst cannot take it (the disk is full), the
// rest is read and thrown away: a container must not stop because of its log.
func copyAll(what string, dst io.Writer, src io.Reader) {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	broken := false
	for {
		n, err := src.Read(buf[:])
		if n > 0 && !broken {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				if gone(werr) {
					return
				}
				slog.Error("stdio is lost from here on", "stream", what, "error", werr)
				broken = true
			}
		}
		if err != nil {
			if err != io.EOF && !gone(err) {
				slog.Warn("stdio", "stream", what, "error", err)
			}
			return
		}
	}
}

// gone is how the ordinary end of the other side shows: the pipe has no reader,
// the terminal no slave, or this process has closed its end.
func gone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.EIO) ||
		errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
