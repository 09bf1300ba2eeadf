// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	monitor "github.com/containerd/containerd/v2/core/runtime/restart"
)

// containerd itself starts containers anew whose labels ask for that and whose task is
// not what they say (its plugin restart, core/runtime/restart; nerdctl run --restart).
// It looks every ten seconds, and knows nothing of moves: it would kill a frame, or a
// copy that waits for its memory, since neither is running yet, and start the original
// anew that has ended because its copy runs. So the label by which it finds them has
// another name while a container is on its way.
const labelRestartHeld = "io.mig/restart.status"

// holdRestart renames the label; it reports whether labels have it.
func holdRestart(labels map[string]string) bool {
	if s, ok := labels[monitor.StatusLabel]; ok {
		labels[labelRestartHeld] = s
		delete(labels, monitor.StatusLabel)
	}
	_, held := labels[labelRestartHeld]
	return held
}

// releaseRestart undoes holdRestart.
func releaseRestart(labels map[string]string) {
	if s, ok := labels[labelRestartHeld]; ok {
		labels[monitor.StatusLabel] = s
		delete(labels, labelRestartHeld)
	}
}

// HoldRestart keeps containerd from starting a container anew, until ReleaseRestart. It
// may be repeated, and reports whether there is anything to be released.
func (h *Host) HoldRestart(ctx context.Context, namespace, id string) (held bool, err error) {
	ctx = in(ctx, namespace)
	r, err := h.record(ctx, namespace, id)
	if err != nil {
		return false, err
	}
	labels := maps.Clone(r.Labels)
	if held = holdRestart(labels); !held || maps.Equal(labels, r.Labels) {
		return held, nil
	}
	return true, h.relabel(ctx, id, func(l map[string]string) { holdRestart(l) })
}

// releaseTimeout bounds the change of one record.
const releaseTimeout = 10 * time.Second

// ReleaseRestart has containerd look after a container again.
func (h *Host) ReleaseRestart(ctx context.Context, namespace, id string) error {
	ctx, cancel := context.WithTimeout(in(ctx, namespace), releaseTimeout)
	defer cancel()
	h.awake(ctx)
	return h.relabel(ctx, id, releaseRestart)
}

// Held lists the containers whose restart policy is held, and whose task runs: those
// that are being moved away, and those that have stayed here though nobody was left to
// release it.
func (h *Host) Held(ctx context.Context, namespace string) (ids []string, err error) {
	ctx = in(ctx, namespace)
	list, err := h.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q", labelRestartHeld))
	if err != nil {
		return nil, fmt.Errorf("containers whose restart policy is held: %w", err)
	}
	for _, c := range list {
		if c.Labels[LabelIncoming] != "" {
			continue
		}
		r, err := h.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
		if err == nil && r.Process.Status == task.Status_RUNNING {
			ids = append(ids, c.ID)
		}
	}
	return ids, nil
}

// LockMove keeps others of this host from moving a container away at the same time. It
// is an abstract socket (unix(7)), which ends with its process, or is closed.
func (h *Host) LockMove(namespace, id string) (net.Listener, error) {
	name := sha256.Sum256([]byte(h.id + "\x00" + namespace + "\x00" + id))
	return net.Listen("unix", fmt.Sprintf("@mig-migrate-%x", name[:16]))
}

func (h *Host) relabel(ctx context.Context, id string, edit func(map[string]string)) error {
	c, err := h.client.LoadContainer(ctx, id)
	if err == nil {
		err = c.Update(ctx, func(_ context.Context, _ *client.Client, r *containers.Container) error {
			edit(r.Labels)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("restart policy of container %s: %w", id, err)
	}
	return nil
}
