// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// How long a logging program may take for its end: by itself once its input is
// closed, then after SIGTERM (containerd's own shim gives it 12 s).
const (
	loggerGrace = time.Second
	loggerTerm  = 12 * time.Second
)

// logger is a running logging program (containerd's runtime/v2/logging): it
// reads the process's stdout at descriptor 3 and stderr at 4, and tells by
// descriptor 5 that it is ready.
type logger struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after the program was waited for
}

// openLogger starts the program and leaves the pipes' writing ends in s.child.
func (s *Streams) openLogger(ctx context.Context) error {
	outR, outW, err := s.pipe()
	if err != nil {
		return err
	}
	s.child[1] = outW
	defer outR.Close()
	errR, errW, err := s.pipe()
	if err != nil {
		return err
	}
	s.child[2] = errW
	defer errR.Close()
	ready, signal, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("stdio: %w", err)
	}
	defer ready.Close()
	s.logger, err = s.startLogger(outR, errR, signal)
	signal.Close()
	if err != nil {
		return err
	}
	s.onClose(s.logger.stop)
	if err := s.holdOutputs(); err != nil {
		return err
	}
	return awaitReady(ctx, ready, s.out)
}

// holdOutputs keeps a second writing end of both pipes until Close, so that the
// program lives as long as the task and not as its first process.
func (s *Streams) holdOutputs() error {
	for _, f := range s.child[1:] {
		if err := blocking(f); err != nil {
			return fmt.Errorf("stdio: %w", err)
		}
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			return fmt.Errorf("stdio: %w", err)
		}
		syscall.CloseOnExec(fd)
		s.onClose(os.NewFile(uintptr(fd), f.Name()).Close)
	}
	return nil
}

func (s *Streams) startLogger(stdout, stderr, ready *os.File) (*logger, error) {
	cmd := exec.Command(s.out.path, s.out.args...)
	cmd.Env = []string{"CONTAINER_ID=" + s.config.ID, "CONTAINER_NAMESPACE=" + s.config.Namespace}
	cmd.ExtraFiles = []*os.File{stdout, stderr, ready}
	release := func() {}
	var err error
	if s.config.Spawn == nil {
		err = cmd.Start()
	} else {
		release, err = s.config.Spawn(func() (int, error) {
			if err := cmd.Start(); err != nil {
				return 0, err
			}
			return cmd.Process.Pid, nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("stdio: start logging program: %w", err)
	}
	l := &logger{cmd: cmd, exited: make(chan struct{})}
	go func() {
		cmd.Wait()
		release()
		close(l.exited)
	}()
	return l, nil
}

// awaitReady waits for the program's word: a byte or, in the first version of
// the protocol, the mere end of file.
func awaitReady(ctx context.Context, ready *os.File, t target) error {
	if deadline, ok := ctx.Deadline(); ok {
		ready.SetReadDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })
	defer stop()
	var b [1]byte
	n, err := ready.Read(b[:])
	switch {
	case n == 1, err == io.EOF && t.kind == kindBinary:
		return nil
	case err == io.EOF:
		return fmt.Errorf("stdio: logging program %s ended or closed descriptor 5 without a byte: it may have crashed", t.path)
	default:
		return fmt.Errorf("stdio: logging program %s is not ready: %w", t.path, err)
	}
}

func (l *logger) stop() error {
	if l.waits(loggerGrace) {
		return nil
	}
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stdio: end logging program: %w", err)
	}
	if l.waits(loggerTerm) {
		return nil
	}
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stdio: kill logging program: %w", err)
	}
	return nil
}

func (l *logger) waits(d time.Duration) bool {
	select {
	case <-l.exited:
		return true
	case <-time.After(d):
		return false
	}
}
