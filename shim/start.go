// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
)

// startFailed is the exit status of a session that never ran (containerd's
// UnknownExitStatus).
const startFailed = 255

// Start runs the created init, fills a frame, or starts an exec session.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if t.isInit(p) {
		err = s.startInit(ctx, t)
	} else {
		err = s.startExec(ctx, t, p)
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.StartResponse{Pid: uint32(p.pid())}, nil
}

func (s *service) startInit(ctx context.Context, t *task) error {
	end, err := t.begin(ctx, opStart)
	if err != nil {
		return err
	}
	release := t.holdExit(t.init)
	defer release()
	err = t.init.streams.StartInput()
	switch {
	case err != nil:
	case t.restoring():
		err = t.runRestore(ctx)
	default:
		if err = t.container.Start(ctx); err != nil {
			err = fmt.Errorf("OCI runtime start failed: %w", asAPI(err))
		}
	}
	if err == nil {
		s.events.Put(&eventapi.TaskStart{ContainerID: t.id, Pid: uint32(t.init.pid())})
	}
	end(err)
	return err
}

// holdExit keeps the exit of p back until release is called.
func (t *task) holdExit(p *process) (release func()) {
	hold := make(chan struct{})
	t.mu.Lock()
	p.starting = hold
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		p.starting = nil
		t.mu.Unlock()
		close(hold)
	}
}

func (s *service) startExec(ctx context.Context, t *task, p *process) error {
	end, err := t.beginExec(ctx, p)
	if err != nil {
		return err
	}
	defer end()
	if err := t.claimExec(p); err != nil {
		return err
	}
	if err := s.runExec(ctx, t, p); err != nil {
		t.failExec(p)
		return err
	}
	return nil
}

// claimExec makes sure that a session is started once only.
func (t *task) claimExec(p *process) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p.phase {
	case phaseCreated:
		p.phase = phaseStarting
		return nil
	case phaseStopped:
		return fmt.Errorf("cannot start a stopped process: %w", errdefs.ErrFailedPrecondition)
	case phaseDeleted:
		return fmt.Errorf("cannot start a deleted process: %w", errdefs.ErrNotFound)
	default:
		return fmt.Errorf("cannot start a running process: %w", errdefs.ErrFailedPrecondition)
	}
}

func (s *service) runExec(ctx context.Context, t *task, p *process) error {
	if err := s.openStreams(ctx, t, p); err != nil {
		return err
	}
	rt, err := t.container.Exec(ctx, p.execID, p.spec, p.childStdio())
	if err != nil {
		return errors.Join(fmt.Errorf("OCI runtime exec failed: %w", asAPI(err)), p.streams.Close())
	}
	t.mu.Lock()
	p.rt = rt
	p.phase = phaseRunning
	t.mu.Unlock()
	attachErr := p.attach(ctx)
	if attachErr == nil {
		attachErr = p.streams.StartInput()
	}
	if attachErr != nil {
		rt.Signal(syscall.SIGKILL)
	}
	s.events.Put(&eventapi.TaskExecStarted{ContainerID: t.id, ExecID: p.execID, Pid: uint32(rt.Pid())})
	go s.watchExit(t, p)
	return attachErr
}

// failExec ends a session that has no process: whoever waits for it goes on.
func (t *task) failExec(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.rt != nil {
		return // it runs; its exit will be seen
	}
	p.phase = phaseStopped
	p.status, p.exitedAt = startFailed, time.Now()
	close(p.done)
}
