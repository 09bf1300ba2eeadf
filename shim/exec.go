// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"encoding/json"
	"fmt"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/shim/stdio"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Exec adds a session, which Start will run.
func (s *service) Exec(_ context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	t, err := s.task(r.ID)
	if err != nil {
		return nil, err
	}
	var spec specs.Process
	if err := json.Unmarshal(r.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("exec %s: process specification: %w: %w", r.ExecID, err, errdefs.ErrInvalidArgument)
	}
	spec.Terminal = r.Terminal
	p := newProcess(r.ExecID, &spec, stdio.URIs{Stdin: r.Stdin, Stdout: r.Stdout,
		Stderr: r.Stderr, Terminal: r.Terminal})
	if err := t.addExec(p); err != nil {
		return nil, err
	}
	s.events.Put(&eventapi.TaskExecAdded{ContainerID: t.id, ExecID: p.execID})
	return &emptypb.Empty{}, nil
}

func (t *task) addExec(p *process) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.execs[p.execID]; ok || p.execID == "" {
		return fmt.Errorf("id %s: %w", p.execID, errdefs.ErrAlreadyExists)
	}
	if err := refuse(opExec, t.state); err != nil {
		return err
	}
	t.execs[p.execID] = p
	return nil
}
