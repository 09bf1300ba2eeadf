// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Config says what to connect.
type Config struct {
	// ID and Namespace are told to a logging program.
	ID, Namespace string
	URIs          URIs
	// UID and GID own the pipes, so that a process of another user can open
	// them again through /proc/self/fd (runc options IoUid, IoGid).
	UID, GID int
	// Spawn wraps the start of a logging program, see runtime.Spawn.
	Spawn func(start func() (pid int, err error)) (release func(), err error)
}

// Streams are the connections of one process. Open makes them; the process gets
// Child's files; AttachConsole adds its terminal; Started closes Child's files
// here; StartInput lets clients write; Close ends everything.
type Streams struct {
	config Config
	out    target // of stdout; it decides for stderr too

	child   [3]*os.File // the process's ends, nil for /dev/null
	logger  *logger     // nil without a logging program
	outputs sync.WaitGroup

	// input is where standard input goes and inputEnded what follows its end;
	// nil without standard input.
	input      *os.File
	inputEnded func()

	mu      sync.Mutex
	stdin   *fifoInput // nil before StartInput
	eof     bool       // CloseStdin was called
	console *console   // nil without a terminal
	closers []func() error
	closed  bool
}

// Open connects all but a terminal, which exists only once the process does:
// see AttachConsole. It does not wait for a client at the other end of a FIFO;
// it waits for a logging program to be ready, as long as ctx allows.
func Open(ctx context.Context, c Config) (s *Streams, err error) {
	out, err := parseTarget(c.URIs.Stdout)
	if err != nil {
		return nil, err
	}
	s = &Streams{config: c, out: out}
	if c.URIs.Terminal {
		return s, nil
	}
	defer func() {
		if err != nil {
			s.Started()
			err = errors.Join(err, s.Close())
		}
	}()
	if out.kind == kindBinary || out.kind == kindBinaryV2 {
		return s, s.openLogger(ctx)
	}
	if err := s.openInput(); err != nil {
		return s, err
	}
	return s, s.openOutputs()
}

// Child are the process's ends: descriptors 0, 1 and 2; nil means /dev/null.
// They stay the streams'.
func (s *Streams) Child() (stdin, stdout, stderr *os.File) {
	return s.child[0], s.child[1], s.child[2]
}

// blocking makes f an ordinary descriptor, which is what a program expects of
// its standard input and output; os.Pipe makes non-blocking ones.
func blocking(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = unix.SetNonblock(int(fd), false) })
	return errors.Join(err, setErr)
}

// Started closes the process's ends in this process, without which a pipe would
// never come to its end.
func (s *Streams) Started() {
	for i, f := range s.child {
		if f != nil {
			f.Close()
			s.child[i] = nil
		}
	}
}

func (s *Streams) openInput() error {
	if s.config.URIs.Stdin == "" {
		return nil
	}
	r, w, err := s.pipe()
	if err != nil {
		return err
	}
	s.child[0] = r
	s.onClose(w.Close)
	s.input = w
	s.inputEnded = func() { w.Close() }
	if err := blocking(r); err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	return nil
}

func (s *Streams) openOutputs() error {
	errOut, err := parseTarget(s.config.URIs.Stderr)
	if err != nil {
		return err
	}
	if s.out.kind == kindFile && errOut.kind != kindNone {
		errOut = s.out // one file for both, as runc's shim has it
	}
	var shared *sink
	for i, t := range []target{s.out, errOut} {
		if t.kind == kindNone {
			continue
		}
		dst := shared
		if i == 0 || dst == nil || t.path != s.out.path {
			if dst, err = openSink(t); err != nil {
				return err
			}
			shared = dst
		}
		r, w, err := s.pipe()
		if err != nil {
			return errors.Join(err, dst.release())
		}
		s.child[1+i] = w
		s.onClose(r.Close)
		if err := blocking(w); err != nil {
			return errors.Join(fmt.Errorf("output: %w", err), dst.release())
		}
		dst.retain()
		s.outputs.Go(func() {
			copyAll("output", dst, r)
			dst.release()
		})
	}
	return nil
}

func (s *Streams) pipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("stdio: %w", err)
	}
	if err := w.Chown(s.config.UID, s.config.GID); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("stdio: give the pipe to %d:%d: %w", s.config.UID, s.config.GID, err),
			r.Close(), w.Close())
	}
	return r, w, nil
}

func (s *Streams) onClose(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closers = append(s.closers, f)
}
