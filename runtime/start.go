// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Start lets the init process execute the program. It returns once the init
// has been told; startContainer hooks and the execve come after that. If the
// init has died it returns an error that wraps ErrNotRunning. If ctx ends first
// it cannot be known whether the init was told: Destroy the container then.
//
// Errors: ErrNotCreated if it was started before, ErrNotRunning.
func (c *Container) Start(ctx context.Context) error {
	return c.errorf("start", c.release(ctx))
}

// ReleaseFrame is Start for a frame that an engine in another process has
// seized: how long it takes is the engine's affair, since the init takes each
// signal as a ptrace stop on its way to execve. No other method waits for it.
func (c *Container) ReleaseFrame(ctx context.Context) error {
	return c.errorf("release frame", c.release(ctx))
}

// release reads the byte that the init writes into the exec FIFO before it
// executes. Opened without waiting for the writer, and watched together with the
// pidfd, the FIFO cannot hang us as libcontainer's own way does for as long as
// nobody opens the other end.
func (c *Container) release(ctx context.Context) error {
	c.startMu.Lock()
	defer c.startMu.Unlock()
	path := filepath.Join(c.StateDir(), execFifo)
	fifo, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return ErrNotCreated
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fifo)
	if err := c.awaitInit(ctx, fifo); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// awaitInit waits for the byte, the init's death or the end of ctx.
func (c *Container) awaitInit(ctx context.Context, fifo int) error {
	const slice = 50 * time.Millisecond // how late the end of ctx or a death may be seen
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// In this order: an init that ran and died has written its byte before.
		dead := c.init.exited()
		fds := []unix.PollFd{{Fd: int32(fifo), Events: unix.POLLIN}}
		wait := int(slice.Milliseconds())
		if dead {
			wait = 0
		}
		if _, err := unix.Poll(fds, wait); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll %s: %w", execFifo, err)
		}
		if fds[0].Revents&unix.POLLIN != 0 {
			return readByte(fifo)
		}
		if dead {
			return fmt.Errorf("the init process (pid %d) died before it could execute the program: %w", c.init.pid, ErrNotRunning)
		}
	}
}

func readByte(fifo int) error {
	var b [1]byte
	n, err := unix.Read(fifo, b[:])
	if err != nil {
		return fmt.Errorf("read %s: %w", execFifo, err)
	}
	if n == 0 {
		return fmt.Errorf("read %s: closed without a byte: %w", execFifo, ErrNotRunning)
	}
	return nil
}
