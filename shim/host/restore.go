// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/io-mig/mig/layers/request/peer"
)

// Ended is a container of ours that has no task, or one that has ended.
type Ended struct {
	h         *Host
	container client.Container
	namespace string
	// old: it has an ended task, which a new one takes the place of.
	old     bool
	streams streams
	// Warnings of where the streams of its next task lead.
	Warnings []string
}

// Ended finds a container whose processes may be restored. logURI is where the
// output of its next task goes; empty: where that of its ended task went, as far as
// that was a log.
func (h *Host) Ended(ctx context.Context, namespace, id, logURI string) (*Ended, error) {
	ctx = in(ctx, namespace)
	r, err := h.record(ctx, namespace, id)
	if err != nil {
		return nil, err
	}
	var s Source
	if err := s.readSpec(&r); err != nil {
		return nil, err
	}
	if r.Runtime.Name != Runtime {
		return nil, fmt.Errorf("container %s: its runtime is %s, only containers of %s can be restored", id, r.Runtime.Name, Runtime)
	}
	if pod := podOf(&r, s.Spec); pod != "" {
		return nil, fmt.Errorf("container %s: it belongs to the pod sandbox %s, whose containers only CRI starts", id, pod)
	}
	e := &Ended{h: h, namespace: namespace}
	old, err := h.ended(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := ValidLogURI(logURI); err != nil {
		return nil, err
	}
	config := peer.Streams{LogURI: logURI, Terminal: s.Spec.Process != nil && s.Spec.Process.Terminal}
	if e.old = old != nil; e.old {
		config.Stdin, config.Stdout, config.Stderr = old.Stdin, old.Stdout, old.Stderr
	}
	var found []peer.Mismatch
	if e.streams.config, found, e.Warnings = arrive(config); len(found) > 0 {
		return nil, fmt.Errorf("container %s: %s", id, found[0])
	}
	e.container, err = h.client.LoadContainer(ctx, id)
	return e, err
}

// ended returns the container's ended task, nil if it has none.
func (h *Host) ended(ctx context.Context, id string) (*task.Process, error) {
	r, err := h.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("task of container %s: %w", id, err)
	}
	if s := r.Process.Status; s != task.Status_STOPPED {
		return nil, fmt.Errorf("container %s is %s: only one whose task has ended can be restored (mig checkpoint --exit ends it, ctr tasks delete --force too)", id, strings.ToLower(s.String()))
	}
	return r.Process, nil
}

// Restore gives the container a task that is made of the image in a directory, an
// absolute path, and returns its pid. After an error the container has no task. The
// end of ctx undoes what is not complete.
func (e *Ended) Restore(ctx context.Context, dir string) (pid int, err error) {
	ctx = in(ctx, e.namespace)
	lasting := context.WithoutCancel(ctx) // a call that is given up may be carried out all the same
	id := e.container.ID()
	if e.old {
		if err := deleteTask(lasting, e.container); err != nil {
			return 0, err
		}
	}
	task, err := newTask(lasting, e.container, e.streams.creator, client.WithRestoreImagePath(dir))
	if err != nil {
		return 0, fmt.Errorf("create the task of container %s: %w", id, err)
	}
	if err := task.Start(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("the restore was given up, and the container has no task: %w", err)
		}
		return 0, errors.Join(fmt.Errorf("container %s: %w", id, err), deleteTask(lasting, e.container, client.WithProcessKill))
	}
	return int(task.Pid()), nil
}
