// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const sigkill = unix.SIGKILL

// Process is the init of a container or an exec session.
type Process struct {
	pid     int
	pidfd   *os.File // open until the exit is known; nil if it was never alive for us
	console *os.File // nil without a terminal of ours

	done   chan struct{}
	status int       // written before done is closed
	at     time.Time // written before done is closed
}

// Pid is the process id in this process's pid namespace. It stays the same
// after the exit, when it may belong to somebody else.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the process has exited, is reaped and its status is known.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is valid once Done is closed: the exit code, or 128 + the number of the
// signal that killed it, and the time at which it was seen to be dead.
func (p *Process) Exit() (status int, at time.Time) {
	<-p.done
	return p.status, p.at
}

// Signal sends sig to this process only, never to another one that got its
// pid. Errors: ErrNotRunning.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v: not a signal of this system", sig)
	}
	err := p.control(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
	if errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("signal %d to pid %d: %w", s, p.pid, ErrNotRunning)
	}
	if err != nil {
		return fmt.Errorf("signal %d to pid %d: %w", s, p.pid, err)
	}
	return nil
}

// exited tells whether the process is dead, reaped or not.
func (p *Process) exited() bool {
	err := p.control(func(fd int) error {
		if dead, err := readable(fd); err != nil || dead {
			return unix.ESRCH
		}
		return nil
	})
	return err != nil
}

// control runs f on the pidfd, which cannot be closed meanwhile. It gives
// os.ErrClosed if the process is gone.
func (p *Process) control(f func(fd int) error) error {
	if p.pidfd == nil {
		return os.ErrClosed
	}
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return os.ErrClosed
	}
	var ferr error
	// Control fails in one way only, if the file is closed, and does not say
	// so in a way that errors.Is knows.
	if err := conn.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	return ferr
}

// Console is the master side of the terminal, or nil. It belongs to the
// process: release it with Close. A Read gives EIO once nobody has the slave.
func (p *Process) Console() *os.File { return p.console }

// Resize sets the terminal's size in characters. Errors: ErrNoConsole.
func (p *Process) Resize(width, height uint16) error {
	if p.console == nil {
		return fmt.Errorf("resize terminal of pid %d: %w", p.pid, ErrNoConsole)
	}
	conn, err := p.console.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = conn.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	if err := errors.Join(err, ierr); err != nil {
		return fmt.Errorf("resize terminal of pid %d: %w", p.pid, err)
	}
	return nil
}

// Close releases the terminal: what reads from it ends, and a process that
// still has it gets SIGHUP. Without a terminal it does nothing.
func (p *Process) Close() error {
	if p.console == nil {
		return nil
	}
	if err := p.console.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
