// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/io-mig/mig/runtime"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Delete removes a stopped or merely created task, or an exec session that is
// not running.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	if r.ExecID == "" {
		if err := s.giveUp(ctx, r.ID); err != nil {
			return nil, err
		}
	}
	t, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if t.isInit(p) {
		err = s.deleteTask(ctx, t)
	} else {
		err = t.deleteExec(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	return t.exitOf(p), nil
}

func (t *task) exitOf(p *process) *taskapi.DeleteResponse {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &taskapi.DeleteResponse{Pid: uint32(p.pid()), ExitStatus: p.status, ExitedAt: timestamppb.New(p.exitedAt)}
}

func (s *service) deleteTask(ctx context.Context, t *task) (err error) {
	end, err := t.begin(ctx, opDelete)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	if err := t.ensureDead(ctx); err != nil {
		return err
	}
	t.stopOOM()
	t.closeRestore()
	if t.agent != nil {
		if err := t.agent.Close(); err != nil {
			slog.Error("close the agent", "container", t.id, "error", err)
		}
	}
	t.closeStreams(ctx)
	if err := t.container.Destroy(ctx); err != nil {
		return fmt.Errorf("failed to delete task: %w", asAPI(err))
	}
	if t.rootfs != "" {
		if err := mount.UnmountRecursive(t.rootfs, 0); err != nil {
			return fmt.Errorf("failed rootfs umount: %w", err)
		}
	}
	exit := t.exitOf(t.init)
	s.events.Put(&eventapi.TaskDelete{ContainerID: t.id, Pid: exit.Pid,
		ExitStatus: exit.ExitStatus, ExitedAt: exit.ExitedAt})
	s.mu.Lock()
	delete(s.tasks, t.id)
	s.mu.Unlock()
	time.AfterFunc(emptyFor, s.endIfEmpty)
	return nil
}

// emptyFor is how long a server without a task waits for containerd to end it.
const emptyFor = 2 * time.Second

// endIfEmpty ends a server whose last task was deleted and which was not told to
// end: the client for which containerd deleted the task died meanwhile, and then
// containerd has a shim without a task, which nobody can remove, and which keeps
// the id busy. It cleans up behind a shim that ends.
func (s *service) endIfEmpty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tasks) == 0 && len(s.creates) == 0 {
		s.end()
	}
}

// ensureDead kills a task that was created and never started.
func (t *task) ensureDead(ctx context.Context) error {
	t.mu.Lock()
	dead := t.init.exited()
	t.mu.Unlock()
	if dead {
		return nil
	}
	if err := t.container.Signal(syscall.SIGKILL, true); err != nil && !errors.Is(err, runtime.ErrNotRunning) {
		return fmt.Errorf("failed to delete task: kill: %w", asAPI(err))
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	select {
	case <-t.init.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("failed to delete task: init process %d does not die: %w", t.init.pid(), ctx.Err())
	}
}

// closeStreams ends the output of the init and of sessions nobody deleted.
func (t *task) closeStreams(ctx context.Context) {
	t.mu.Lock()
	processes := []*process{t.init}
	for _, p := range t.execs {
		processes = append(processes, p)
	}
	t.mu.Unlock()
	for _, p := range processes {
		t.closeProcess(ctx, p)
	}
}

func (t *task) closeProcess(ctx context.Context, p *process) {
	t.mu.Lock()
	streams, rt := p.streams, p.rt
	t.mu.Unlock()
	if streams == nil {
		return
	}
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := streams.Drain(drain); err != nil {
		slog.Error("output is lost", "process", t.apiID(p), "error", err)
	}
	if err := streams.Close(); err != nil {
		slog.Error("close stdio", "process", t.apiID(p), "error", err)
	}
	if rt != nil {
		rt.Close()
	}
}

func (t *task) deleteExec(ctx context.Context, p *process) error {
	t.mu.Lock()
	switch p.phase {
	case phaseStarting, phaseRunning:
		t.mu.Unlock()
		return fmt.Errorf("cannot delete a running process: %w", errdefs.ErrFailedPrecondition)
	case phaseDeleted:
		t.mu.Unlock()
		return fmt.Errorf("cannot delete a deleted process: %w", errdefs.ErrNotFound)
	}
	p.phase = phaseDeleted
	t.mu.Unlock()
	t.closeProcess(ctx, p)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.execs, p.execID)
	return nil
}
