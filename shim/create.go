// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	eventapi "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/io-mig/mig/runtime"
	"github.com/io-mig/mig/shim/metrics"
	"github.com/io-mig/mig/shim/stdio"
	agentmount "github.com/io-mig/mig/spec/agent/mount"
)

// initPidFile is where tools that know runc's bundles look for the pid.
const initPidFile = "init.pid"

// Create makes a container up to OCI's "created", or a frame container for a
// restore. After an error nothing of it is left.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	ctx, err := s.reserve(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	t, err := s.create(ctx, r)
	if err != nil {
		s.settle(r.ID, nil)
		return nil, err
	}
	pid := uint32(t.init.pid())
	s.events.Put(&eventapi.TaskCreate{
		ContainerID: r.ID,
		Bundle:      r.Bundle,
		Rootfs:      r.Rootfs,
		IO: &eventapi.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
			Terminal: r.Terminal},
		Checkpoint: r.Checkpoint,
		Pid:        pid,
	})
	s.watchOOM(t)
	s.settle(r.ID, t)
	go s.watchExit(t, t.init)
	return &taskapi.CreateTaskResponse{Pid: pid}, nil
}

// creation unwinds a create that failed half-way: the last step first.
type creation struct{ undo []func() error }

func (c *creation) add(f func() error) { c.undo = append(c.undo, f) }

func (c *creation) unwind(err error) error {
	for i := len(c.undo) - 1; i >= 0; i-- {
		if undoErr := c.undo[i](); undoErr != nil {
			slog.Error("clean up after a failed create", "error", undoErr)
		}
	}
	return err
}

func (s *service) create(ctx context.Context, r *taskapi.CreateTaskRequest) (_ *task, err error) {
	opts, err := decodeOptions(r.Options)
	if err != nil {
		return nil, err
	}
	t := &task{
		id: r.ID, namespace: s.namespace, bundle: r.Bundle,
		init: newProcess("", nil, stdio.URIs{Stdin: r.Stdin, Stdout: r.Stdout,
			Stderr: r.Stderr, Terminal: r.Terminal}),
		execStarts: make(map[*process]chan struct{}),
		execs:      make(map[string]*process),
		stopOOM:    func() {},
	}
	if t.spec, err = loadSpec(r.Bundle); err != nil {
		return nil, err
	}
	t.sharedPids = sharesPids(t.spec)
	t.init.ioUID, t.init.ioGID = int(opts.IoUid), int(opts.IoGid)

	var c creation
	defer func() {
		if err != nil {
			err = c.unwind(err)
		}
	}()
	if err := s.prepareRestore(ctx, t, r, opts.CriuImagePath, &c); err != nil {
		return nil, err
	}
	if err := record(r.Bundle, bundleRecord{Root: runtimeRoot(opts, s.namespace, r.Bundle), Scratch: t.scratch}); err != nil {
		return nil, err
	}
	if err := t.mountRootfs(r, &c); err != nil {
		return nil, err
	}
	if err := s.openStreams(ctx, t, t.init); err != nil {
		return nil, err
	}
	c.add(t.init.streams.Close)
	if err := s.openAgent(t, &c); err != nil {
		return nil, err
	}
	if err := s.createContainer(ctx, t, opts, &c); err != nil {
		return nil, fmt.Errorf("OCI runtime create failed: %w", asAPI(err))
	}
	if err := t.init.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.keep(ctx, t.id); err != nil {
		return nil, err
	}
	if t.cgroup, err = metrics.ForProcess(t.init.pid()); err != nil {
		// The container works without; Stats says that it has no cgroup.
		slog.Warn("no cgroup statistics", "container", t.id, "error", err)
	}
	return t, nil
}

// createContainer runs libcontainer's part, which unwinds itself on failure.
func (s *service) createContainer(ctx context.Context, t *task, opts *options.Options, c *creation) error {
	o := runtime.CreateOptions{
		ID: t.id, Bundle: t.bundle, Root: runtimeRoot(opts, t.namespace, t.bundle),
		Spec:          agentmount.Add(t.spec, t.bundle),
		Stdio:         t.init.childStdio(),
		SystemdCgroup: opts.SystemdCgroup,
		NoPivotRoot:   opts.NoPivotRoot,
		NoNewKeyring:  opts.NoNewKeyring,
		PidFile:       filepath.Join(t.bundle, initPidFile),
	}
	if t.restore != nil {
		o.Frame = t.restore.Frame()
	}
	container, err := s.newContainer(ctx, o)
	if err != nil {
		return err
	}
	t.container = container
	t.init.rt = container.Init()
	c.add(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		return errors.Join(container.Destroy(ctx), container.Init().Close())
	})
	return nil
}

// watchOOM turns the cgroup's notifications into events until the task goes.
func (s *service) watchOOM(t *task) {
	ctx, cancel := context.WithCancel(context.Background())
	oom, err := t.container.OOM(ctx)
	if err != nil {
		cancel()
		slog.Warn("no out-of-memory events", "container", t.id, "error", err)
		return
	}
	t.stopOOM = cancel
	go func() {
		for range oom {
			s.events.Put(&eventapi.TaskOOM{ContainerID: t.id})
		}
	}()
}
