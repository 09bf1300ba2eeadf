// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/types/known/anypb"
)

// Mig is mig's shim, driven through its task service as containerd drives it,
// with a new shim process for every container.
type Mig struct {
	Program   string   // path of containerd-shim-mig-v1
	Namespace string   // containerd's
	Env       []string // of the shim

	events *sink
}

var _ Driver = (*Mig)(nil)

// Open makes the driver ready; dir is for a socket. The caller must Close it.
func (m *Mig) Open(dir string) (err error) {
	m.events, err = newSink(filepath.Join(dir, "events.sock"))
	return err
}

// Close ends what Open has begun and forgets the requests, which mig keeps
// for those who ask for their status later.
func (m *Mig) Close() error {
	err := errors.Join(m.events.close(), os.RemoveAll(m.requests()))
	// The namespace's directory goes too, unless a container has left something.
	_ = os.Remove(filepath.Dir(m.requests()))
	return err
}

// Name implements Driver.
func (m *Mig) Name() string { return "mig" }

// Run implements Driver.
func (m *Mig) Run(ctx context.Context, c *Container) error {
	if err := m.startShim(ctx, c); err != nil {
		return err
	}
	if err := c.create(ctx, ""); err != nil {
		return err
	}
	if _, err := c.shim.task.Start(ctx, &task.StartRequest{ID: c.ID}); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", c.ID, err), m.Remove(ctx, c))
	}
	return nil
}

// create creates the container, or a frame for an image. If it fails, the shim
// has ended.
func (c *Container) create(ctx context.Context, image string) error {
	created, err := c.shim.task.Create(ctx, &task.CreateTaskRequest{ID: c.ID, Bundle: c.Bundle, Checkpoint: image, Stdout: c.Stdout, Stderr: c.Stdout})
	if err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", c.ID, err), c.stopShim(ctx))
	}
	c.Pid = int(created.Pid)
	return nil
}

// Checkpoint implements Driver.
func (m *Mig) Checkpoint(ctx context.Context, c *Container, image string, leave bool) (time.Duration, error) {
	opts, err := anypb.New(&options.CheckpointOptions{Exit: !leave, ImagePath: image})
	if err != nil {
		return 0, err
	}
	// typeurl, which containerd uses, has no prefix.
	opts.TypeUrl = string(opts.MessageName())
	started := time.Now()
	_, err = c.shim.task.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: c.ID, Path: image, Options: opts})
	if err != nil {
		return 0, fmt.Errorf("checkpoint %s: %w", c.ID, err)
	}
	return time.Since(started), nil
}

// Restore implements Driver. Create is the frame's.
func (m *Mig) Restore(ctx context.Context, c *Container, image string) (Restored, error) {
	var r Restored
	started := time.Now()
	if err := m.startShim(ctx, c); err != nil {
		return r, err
	}
	r.Shim = time.Since(started)
	started = time.Now()
	if err := c.create(ctx, image); err != nil {
		return r, err
	}
	r.Create = time.Since(started)
	started = time.Now()
	_, err := c.shim.task.Start(ctx, &task.StartRequest{ID: c.ID})
	r.Fill = time.Since(started)
	if err != nil {
		return r, errors.Join(fmt.Errorf("restore %s: %w", c.ID, err), m.Remove(ctx, c))
	}
	return r, nil
}

// Remove implements Driver.
func (m *Mig) Remove(ctx context.Context, c *Container) error {
	if c.shim == nil {
		return nil
	}
	t := c.shim.task
	// It may have ended already; then only Wait and Delete have something to say.
	_, _ = t.Kill(ctx, &task.KillRequest{ID: c.ID, Signal: 9, All: true})
	_, err := t.Wait(ctx, &task.WaitRequest{ID: c.ID})
	_, deleted := t.Delete(ctx, &task.DeleteRequest{ID: c.ID})
	if err = errors.Join(err, deleted); err != nil {
		err = fmt.Errorf("remove %s: %w", c.ID, err)
	}
	return errors.Join(err, c.stopShim(ctx))
}

// Signal sends a signal to a container's first process.
func (m *Mig) Signal(ctx context.Context, c *Container, signal syscall.Signal) error {
	if _, err := c.shim.task.Kill(ctx, &task.KillRequest{ID: c.ID, Signal: uint32(signal)}); err != nil {
		return fmt.Errorf("signal %d to %s: %w", signal, c.ID, err)
	}
	return nil
}

// Wait waits for the end of a container's first process and returns its exit
// status, 128 and the signal's number for one that a signal has ended.
func (m *Mig) Wait(ctx context.Context, c *Container) (uint32, error) {
	answer, err := c.shim.task.Wait(ctx, &task.WaitRequest{ID: c.ID})
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", c.ID, err)
	}
	return answer.ExitStatus, nil
}

// Pause freezes a container, Resume lets it go on.
func (m *Mig) Pause(ctx context.Context, c *Container) error {
	if _, err := c.shim.task.Pause(ctx, &task.PauseRequest{ID: c.ID}); err != nil {
		return fmt.Errorf("pause %s: %w", c.ID, err)
	}
	return nil
}

// Resume undoes Pause.
func (m *Mig) Resume(ctx context.Context, c *Container) error {
	if _, err := c.shim.task.Resume(ctx, &task.ResumeRequest{ID: c.ID}); err != nil {
		return fmt.Errorf("resume %s: %w", c.ID, err)
	}
	return nil
}
