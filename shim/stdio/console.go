// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// quiet is how long a terminal may be silent, after its process has exited,
// before it counts as drained.
const quiet = 50 * time.Millisecond

// console is the master side of a terminal.
type console struct {
	master  *os.File
	exiting atomic.Bool
}

// Read implements io.Reader. After finish it ends as soon as nothing is left.
func (c *console) Read(b []byte) (int, error) {
	if c.exiting.Load() {
		c.master.SetReadDeadline(time.Now().Add(quiet))
	}
	return c.master.Read(b)
}

func (c *console) finish() {
	c.exiting.Store(true)
	// Also wakes a Read that waits already. A master that has no deadlines
	// ends with EIO when its last slave is closed.
	c.master.SetReadDeadline(time.Now().Add(quiet))
}

// AttachConsole connects the master side of the process's terminal. The file
// stays the caller's, who must keep it open until after Close; hangUp is called
// when the input has come to its end, and must close it: the processes on the
// terminal get SIGHUP then, as with runc's shim.
func (s *Streams) AttachConsole(ctx context.Context, master *os.File, hangUp func()) error {
	c := &console{master: master}
	s.mu.Lock()
	s.console = c
	s.mu.Unlock()
	out, closeOut, err := s.consoleOutput(ctx)
	if err != nil {
		return err
	}
	s.outputs.Go(func() {
		copyAll("terminal", out, c)
		closeOut()
	})
	if s.config.URIs.Stdin != "" {
		s.input, s.inputEnded = master, hangUp
	}
	return nil
}

func (s *Streams) consoleOutput(ctx context.Context) (out io.Writer, closeOut func() error, err error) {
	switch s.out.kind {
	case kindNone:
		// Read it nevertheless, or the process would block on a full tty.
		return io.Discard, func() error { return nil }, nil
	case kindBinary, kindBinaryV2:
		if err := s.openLogger(ctx); err != nil {
			return nil, nil, err
		}
		w := s.child[1]
		s.child[1] = nil
		return w, w.Close, nil
	case kindPath, kindFile:
		dst, err := openSink(s.out)
		if err != nil {
			return nil, nil, err
		}
		dst.retain()
		return dst, dst.release, nil
	}
	return nil, nil, errors.Join(fmt.Errorf("stdio: terminal output of kind %d", s.out.kind))
}
