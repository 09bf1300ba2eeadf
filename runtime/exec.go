// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Exec starts another process in the container. Its seccomp filter is the
// spec's; user, capabilities, limits and the rest are p's, and never those that
// a frame was given. execID is only for messages. It returns when the process
// is about to execute its program: as with runc, a signal that comes at once may
// still meet libcontainer's code, which ignores most.
//
// If the container is paused in the middle of it, Exec waits until it is
// resumed; ctx is looked at before the start only.
//
// Errors: ErrNotRunning, ErrPaused; a program that cannot be executed is
// libcontainer's error, and leaves nothing behind.
func (c *Container) Exec(ctx context.Context, execID string, p *specs.Process, s Stdio) (*Process, error) {
	proc, err := c.exec(ctx, p, s)
	return proc, c.errorf(fmt.Sprintf("exec %q", execID), err)
}

func (c *Container) exec(ctx context.Context, p *specs.Process, s Stdio) (*Process, error) {
	if err := checkProcess(p); err != nil {
		return nil, err
	}
	lp, err := newProcess(p)
	if err != nil {
		return nil, err
	}
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	switch status.State {
	case StateStopped:
		return nil, ErrNotRunning
	case StatePaused:
		return nil, ErrPaused
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := c.view()
	if err != nil {
		return nil, err
	}
	return launch(v, lp, s)
}
