// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fifoInput reads a FIFO of which this process holds a writing end as well.
// Without that hold the first client that goes away would end the input for
// good; CloseIO is what lets go of it.
type fifoInput struct {
	reader *os.File
	hold   *os.File
	once   sync.Once
}

func openFIFOInput(path string) (*fifoInput, error) {
	r, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("stdin: %w", err)
	}
	// Opening the writing end cannot block: there is a reader.
	w, err := os.OpenFile(path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stdin: %w", err), r.Close())
	}
	return &fifoInput{reader: r, hold: w}, nil
}

func (f *fifoInput) releaseHold() (err error) {
	f.once.Do(func() { err = f.hold.Close() })
	return err
}

func (f *fifoInput) close() error {
	err := f.releaseHold()
	if closeErr := f.reader.Close(); !errors.Is(closeErr, os.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	return err
}

// sink is where output goes. Stdout and stderr can share one; the last release
// closes it.
type sink struct {
	*os.File
	users atomic.Int32
}

func (s *sink) retain() { s.users.Add(1) }

func (s *sink) release() error {
	if s.users.Add(-1) > 0 {
		return nil
	}
	return s.Close()
}

// openSink opens a FIFO or file for writing. A FIFO is opened for reading too:
// the open does not wait for a client then, and a client may come and go
// without the writer's getting SIGPIPE.
func openSink(t target) (*sink, error) {
	flags := unix.O_WRONLY | unix.O_APPEND
	switch {
	case t.kind == kindFile:
		if err := os.MkdirAll(filepath.Dir(t.path), 0o755); err != nil {
			return nil, fmt.Errorf("output: %w", err)
		}
		flags |= unix.O_CREAT
	case isFIFO(t.path):
		flags = unix.O_RDWR | unix.O_NONBLOCK
	}
	f, err := os.OpenFile(t.path, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	return &sink{File: f}, nil
}

func isFIFO(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}
