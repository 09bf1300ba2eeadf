// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"

	"github.com/io-mig/mig/shim/bootstrap"
	"github.com/io-mig/mig/spec/network"
)

// discardTimeout bounds the removal of one move's remains.
const discardTimeout = time.Minute

// Discard removes whatever a move has made and not finished: task, container,
// snapshot, image, lease. What was there before it stays. keepBlobs leaves what
// was copied for the next attempt. It may be repeated, by any process.
func (h *Host) Discard(ctx context.Context, namespace, id, token string, keepBlobs bool) error {
	// A caller that has given up must not leave things half-way.
	ctx, cancel := context.WithTimeout(in(context.WithoutCancel(ctx), namespace), discardTimeout)
	defer cancel()
	var errs []error
	if id != "" {
		errs = append(errs, h.discardContainer(ctx, id, token))
	}
	images, err := h.incomingImages(ctx, token)
	errs = append(errs, err)
	for _, i := range images {
		if err := h.client.ImageService().Delete(ctx, i.Name); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("image %s: %w", i.Name, err))
		}
	}
	if !keepBlobs {
		errs = append(errs, h.endLeases(ctx, id, token))
	}
	return errors.Join(errs...)
}

func (h *Host) discardContainer(ctx context.Context, id, token string) error {
	c, err := h.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	info, err := c.Info(ctx, client.WithoutRefreshedMetadata)
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	if info.Labels[LabelIncoming] != token {
		return nil // a container of somebody else's with the id
	}
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	if err := h.endTask(ctx, c, namespace); err != nil {
		return err
	}
	if err := deleteContainer(ctx, c); err != nil {
		return err
	}
	return h.removeStaleSocket(namespace, id)
}

// A create or a delete of a task that nobody waits for any more takes containerd,
// and the shim, this long at the most, asked every shimPoll.
const (
	shimEndsWithin = 15 * time.Second
	shimPoll       = 20 * time.Millisecond
)

// endTask ends a container's task and waits until its shim is gone. While the
// shim is there, containerd may still be creating a task that a client asked for
// that has died, and which is not to be seen yet; and it deletes a task only
// while there is a container of that id.
func (h *Host) endTask(ctx context.Context, c client.Container, namespace string) error {
	socket := bootstrap.SocketPath(bootstrap.DefaultSocketDir, h.address, namespace, c.ID())
	for end := time.Now().Add(shimEndsWithin); ; {
		if err := deleteTask(ctx, c, client.WithProcessKill); err != nil {
			return err
		}
		if !bootstrap.Answers(socket) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the shim of %s at %s has no task and does not end: the container stays until it does", c.ID(), socket)
		}
		select {
		case <-time.After(shimPoll):
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of the shim of %s: %w", c.ID(), ctx.Err())
		}
	}
}

// removeStaleSocket removes what containerd forgets of a task whose client died
// while it was created: the socket of a shim that is gone.
func (h *Host) removeStaleSocket(namespace, id string) error {
	path := bootstrap.SocketPath(bootstrap.DefaultSocketDir, h.address, namespace, id)
	if bootstrap.Answers(path) {
		return nil // one that just ends removes it itself
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket of the shim of %s: %w", id, err)
	}
	return nil
}

// deleteTask removes a container's task, which has ended unless an option ends it.
func deleteTask(ctx context.Context, c client.Container, opts ...client.ProcessDeleteOpts) error {
	task, err := c.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		_, err = task.Delete(ctx, opts...)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("end the task of %s: %w", c.ID(), err)
	}
	return nil
}

// deleteContainer removes a container and its snapshot, which may be missing.
func deleteContainer(ctx context.Context, c client.Container) error {
	err := c.Delete(ctx, client.WithSnapshotCleanup)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", c.ID(), err)
	}
	return nil
}

// Remove removes a container that has left this host: its task, which has
// ended, its record and its snapshot. One that still runs is an error.
func (h *Host) Remove(ctx context.Context, namespace, id string) error {
	ctx, cancel := context.WithTimeout(in(context.WithoutCancel(ctx), namespace), discardTimeout)
	defer cancel()
	c, err := h.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	task, err := c.Task(ctx, nil)
	switch {
	case err == nil:
		if err := h.awaitStopped(ctx, task); err != nil {
			return err
		}
		if _, err := task.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove the ended task of %s: %w", id, err)
		}
	case !errdefs.IsNotFound(err):
		return fmt.Errorf("task of container %s: %w", id, err)
	}
	return deleteContainer(ctx, c)
}

// stoppedWithin is how long containerd may take to hear of the end of a task.
const stoppedWithin = 10 * time.Second

func (h *Host) awaitStopped(ctx context.Context, task client.Task) error {
	ctx, cancel := context.WithTimeout(ctx, stoppedWithin)
	defer cancel()
	exited, err := task.Wait(ctx)
	if err != nil {
		return fmt.Errorf("wait for the end of %s: %w", task.ID(), err)
	}
	if st := <-exited; st.Error() != nil {
		return fmt.Errorf("the task of %s still runs: nothing is removed: %w", task.ID(), st.Error())
	}
	return nil
}

// Unfinished is what is left of one move on this host.
type Unfinished struct {
	Namespace, Token string
	// Container is empty where there is only an image or a lease.
	Container string
	// Network is what the container is given of this host's network, nil if
	// nothing.
	Network *network.Request
}

// Unfinished lists the moves to this host that have not ended: under way, or
// left by a crash.
func (h *Host) Unfinished(ctx context.Context, namespace string) ([]Unfinished, error) {
	ctx = in(ctx, namespace)
	var list []Unfinished
	seen := map[string]bool{}
	add := func(token, id string, r *network.Request) {
		if token != "" && (id != "" || !seen[token]) {
			seen[token] = true
			list = append(list, Unfinished{Namespace: namespace, Token: token, Container: id, Network: r})
		}
	}
	filter := fmt.Sprintf("labels.%q", LabelIncoming)
	containers, err := h.client.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("containers on their way to this host: %w", err)
	}
	for _, c := range containers {
		add(c.Labels[LabelIncoming], c.ID, networkOf(c.Spec.GetValue()))
	}
	images, err := h.incomingImages(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		add(i.Labels[LabelIncoming], "", nil)
	}
	leases, err := h.client.LeasesService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("leases of moves: %w", err)
	}
	for _, l := range leases {
		add(l.Labels[LabelIncoming], "", nil)
	}
	return list, nil
}

// Runs tells whether a container's task runs.
func (h *Host) Runs(ctx context.Context, namespace, id string) (bool, int, error) {
	ctx = in(ctx, namespace)
	c, err := h.client.LoadContainer(ctx, id)
	if err == nil {
		var task client.Task
		if task, err = c.Task(ctx, nil); err == nil {
			var st client.Status
			st, err = task.Status(ctx)
			return err == nil && (st.Status == client.Running || st.Status == client.Paused), int(task.Pid()), err
		}
	}
	if errdefs.IsNotFound(err) {
		return false, 0, nil
	}
	return false, 0, fmt.Errorf("container %s: %w", id, err)
}
