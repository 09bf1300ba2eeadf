// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Pause freezes all processes of a task.
func (s *service) Pause(ctx context.Context, r *taskapi.PauseRequest) (*emptypb.Empty, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	end, err := t.begin(ctx, opPause)
	if err != nil {
		return nil, err
	}
	if err = t.container.Pause(); err != nil {
		err = fmt.Errorf("OCI runtime pause failed: %w", asAPI(err))
	} else {
		t.mu.Lock()
		t.pausedAt = time.Now()
		t.mu.Unlock()
		s.events.Put(&eventapi.TaskPaused{ContainerID: t.id})
	}
	end(err)
	return &emptypb.Empty{}, err
}

// Resume thaws a paused task.
func (s *service) Resume(ctx context.Context, r *taskapi.ResumeRequest) (*emptypb.Empty, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, s.resume(ctx, t)
}

func (s *service) resume(ctx context.Context, t *task) error {
	end, err := t.begin(ctx, opResume)
	if err != nil {
		return err
	}
	if err = t.container.Resume(); err != nil {
		err = fmt.Errorf("OCI runtime resume failed: %w", asAPI(err))
	} else {
		s.events.Put(&eventapi.TaskResumed{ContainerID: t.id})
	}
	end(err)
	return err
}

// Kill sends a signal to the init, to all processes or to an exec session. It
// is possible at any time, whatever else goes on.
func (s *service) Kill(_ context.Context, r *taskapi.KillRequest) (*emptypb.Empty, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	rt, exited := p.rt, p.exited()
	t.mu.Unlock()
	switch {
	case exited:
		err = runtime.ErrNotRunning
	case rt == nil:
		return nil, fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
	case t.isInit(p):
		err = t.container.Signal(syscall.Signal(r.Signal), r.All)
	default:
		err = rt.Signal(syscall.Signal(r.Signal))
	}
	if errors.Is(err, runtime.ErrNotRunning) {
		return nil, fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("unknown error after kill: %w", err)
	}
	return &emptypb.Empty{}, nil
}

// ResizePty sets the size of a process's terminal; without one it does nothing.
func (s *service) ResizePty(_ context.Context, r *taskapi.ResizePtyRequest) (*emptypb.Empty, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	rt, exited := p.rt, p.exited()
	t.mu.Unlock()
	if exited && !t.isInit(p) {
		return nil, fmt.Errorf("cannot resize a stopped container: %w", errdefs.ErrFailedPrecondition)
	}
	if rt == nil || exited {
		return &emptypb.Empty{}, nil
	}
	err = rt.Resize(uint16(r.Width), uint16(r.Height))
	if errors.Is(err, runtime.ErrNoConsole) {
		err = nil
	}
	return &emptypb.Empty{}, err
}

// CloseIO lets a process see the end of its input.
func (s *service) CloseIO(_ context.Context, r *taskapi.CloseIORequest) (*emptypb.Empty, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	streams := p.streams
	t.mu.Unlock()
	if streams == nil || !r.Stdin {
		return &emptypb.Empty{}, nil
	}
	if err := streams.CloseStdin(); err != nil {
		return nil, fmt.Errorf("close stdin: %w", err)
	}
	return &emptypb.Empty{}, nil
}

// Update changes the limits of a task's cgroup.
func (s *service) Update(_ context.Context, r *taskapi.UpdateTaskRequest) (*emptypb.Empty, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	var resources specs.LinuxResources
	if err := json.Unmarshal(r.Resources.GetValue(), &resources); err != nil {
		return nil, fmt.Errorf("update %s: resources: %w: %w", t.id, err, errdefs.ErrInvalidArgument)
	}
	t.mu.Lock()
	err = refuse(opUpdate, t.state)
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := t.container.Update(&resources); err != nil {
		return nil, fmt.Errorf("OCI runtime update failed: %w", asAPI(err))
	}
	return &emptypb.Empty{}, nil
}
