// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"fmt"
	"os"

	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// State answers from memory, at once.
func (s *service) State(_ context.Context, r *taskapi.StateRequest) (*taskapi.StateResponse, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return &taskapi.StateResponse{
		ID:         t.apiID(p),
		Bundle:     t.bundle,
		Pid:        uint32(p.pid()),
		Status:     t.statusOf(p),
		Stdin:      p.uris.Stdin,
		Stdout:     p.uris.Stdout,
		Stderr:     p.uris.Stderr,
		Terminal:   p.uris.Terminal,
		ExitStatus: p.status,
		ExitedAt:   timestamppb.New(p.exitedAt),
		ExecID:     p.execID,
	}, nil
}

// statusOf needs the lock. A frozen task's sessions are frozen with it.
func (t *task) statusOf(p *process) tasktypes.Status {
	status := t.state.status()
	if t.isInit(p) || status == tasktypes.Status_PAUSED || status == tasktypes.Status_PAUSING {
		return status
	}
	return p.phase.status()
}

// Wait answers when the process has exited.
func (s *service) Wait(ctx context.Context, r *taskapi.WaitRequest) (*taskapi.WaitResponse, error) {
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	exit := t.exitOf(p)
	return &taskapi.WaitResponse{ExitStatus: exit.ExitStatus, ExitedAt: exit.ExitedAt}, nil
}

// Pids lists the task's processes; exec sessions carry their id.
func (s *service) Pids(_ context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	pids, err := t.container.Pids()
	if err != nil {
		return nil, fmt.Errorf("processes of %s: %w", t.id, asAPI(err))
	}
	sessions := t.sessions()
	resp := &taskapi.PidsResponse{}
	for _, pid := range pids {
		info := &tasktypes.ProcessInfo{Pid: uint32(pid)}
		if execID, ok := sessions[pid]; ok {
			if info.Info, err = marshalAny(&options.ProcessDetails{ExecID: execID}); err != nil {
				return nil, err
			}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

// sessions are the exec sessions by pid.
func (t *task) sessions() map[int]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[int]string, len(t.execs))
	for id, p := range t.execs {
		if pid := p.pid(); pid != 0 {
			m[pid] = id
		}
	}
	return m
}

// Stats are the cgroup's counters.
func (s *service) Stats(_ context.Context, r *taskapi.StatsRequest) (*taskapi.StatsResponse, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	if t.cgroup == nil {
		return nil, fmt.Errorf("cgroup does not exist: %w", errdefs.ErrNotFound)
	}
	m, err := t.cgroup.Stat()
	if err != nil {
		return nil, fmt.Errorf("statistics of %s: %w", t.id, err)
	}
	stats, err := marshalAny(m)
	if err != nil {
		return nil, err
	}
	return &taskapi.StatsResponse{Stats: stats}, nil
}

// Connect tells who serves the task and which process it is.
func (s *service) Connect(_ context.Context, r *taskapi.ConnectRequest) (*taskapi.ConnectResponse, error) {
	resp := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if t, err := s.task(r.ID); err == nil {
		t.mu.Lock()
		resp.TaskPid = uint32(t.init.pid())
		t.mu.Unlock()
	}
	return resp, nil
}

// Shutdown ends the shim if it has no task left.
func (s *service) Shutdown(context.Context, *taskapi.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending = len(s.tasks) == 0; !s.ending {
		s.watchForgotten()
	}
	s.endIfTold()
	return &emptypb.Empty{}, nil
}

// marshalAny names the type as containerd's typeurl does, without a host.
func marshalAny(m proto.Message) (*anypb.Any, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: data}, nil
}
