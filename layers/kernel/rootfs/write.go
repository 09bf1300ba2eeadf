// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/io-mig/mig/layers/kernel/target"
	"github.com/io-mig/mig/layers/kernel/tracer"
)

// directBytes is what the engine writes to one memory file system by itself.
// Pages belong to the memory cgroup of whoever touches them first, so what is
// more than that the task writes: a container has no more memory than its limit
// says because it was restored.
const directBytes = 256 << 10

// taskWriter writes files through the container's first process.
type taskWriter struct {
	frame  *target.Frame
	direct int

	file *os.File // that the task has open as fd
	fd   int
}

// WriteAt implements filetree.Writer.
func (w *taskWriter) WriteAt(f *os.File, b []byte, at int64) error {
	if w.direct += len(b); w.direct <= directBytes {
		_, err := f.WriteAt(b, at)
		return err
	}
	t := w.frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	if w.file != f {
		fds, err := t.Accept([]*os.File{f})
		if err != nil {
			return err
		}
		w.file, w.fd = f, fds[0]
	}
	for len(b) > 0 {
		n := min(len(b), writeBytes)
		p := t.Plan()
		p.Expect(tracer.Syscall(unix.SYS_PWRITE64, uint64(w.fd), p.Put(b[:n]), uint64(n), uint64(at)), int64(n))
		if err := p.Run(); err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

// writeBytes is what one call writes: it has to fit the task's scratch memory.
const writeBytes = 512 << 10

// Close implements filetree.Writer.
func (w *taskWriter) Close(f *os.File) error {
	if w.file != f {
		return nil
	}
	w.file = nil
	t := w.frame.Task(target.FirstTask)
	if t == nil || t.Traced == nil {
		return fmt.Errorf("process %d: %w", target.FirstTask, target.ErrNotStopped)
	}
	p := t.Plan()
	p.Close(w.fd)
	return p.Run()
}
