// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/io-mig/mig/layers/request/peer"
	"github.com/io-mig/mig/shim/describe"
)

// Incoming is how the copy's engine meets the source's.
type Incoming struct {
	// Socket is the one of the acceptor on which the engine waits.
	Socket string
	// TLS is the directory of this host's certificate; empty: no TLS.
	TLS string
	// From is the host that the container comes from, identity.Name.
	From string
}

// Make makes everything of a container up to a task whose frame waits: image,
// record, snapshot, task. After an error Discard removes what there is of it.
// The end of ctx ends it between two steps or while the image is unpacked: a call
// that is given up at our end may still be carried out at containerd's, behind
// the back of whoever cleans up.
func (h *Host) Make(ctx context.Context, o *peer.Offer, how Incoming) (*Copy, error) {
	ctx = in(ctx, o.Namespace)
	ctx, err := h.lease(ctx, o.Container.ID, o.Token)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context, *peer.Offer, Incoming) error
	}{
		{"image", h.makeImage},
		// The record comes before the snapshot that it names, because its label is
		// how a crash's remains are found.
		{"container", h.makeContainer},
		{"snapshot", h.makeSnapshot},
	} {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := step.do(ctx, o, how); err != nil {
			return nil, fmt.Errorf("make the %s of %s: %w", step.what, o.Container.ID, err)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return h.makeTask(context.WithoutCancel(ctx), o)
}

// makeImage ties the blobs together, so that garbage collection keeps them, and
// makes the record unless there is one.
func (h *Host) makeImage(ctx context.Context, o *peer.Offer, _ Incoming) error {
	ctx = context.WithoutCancel(ctx)
	i := &o.Container.Image
	store := h.client.ContentStore()
	target := descriptor(i.Target)
	labelled := images.SetChildrenLabels(store, children(store))
	present := images.HandlerFunc(func(ctx context.Context, d v1.Descriptor) ([]v1.Descriptor, error) {
		below, err := labelled.Handle(ctx, d)
		if errdefs.IsNotFound(err) && d.Digest != target.Digest {
			return nil, nil // a layer that is unpacked and not kept as a blob
		}
		return below, err
	})
	if err := images.Walk(ctx, present, target); err != nil {
		return err
	}
	labels := maps.Clone(i.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelIncoming] = o.Token
	_, err := h.client.ImageService().Create(ctx, images.Image{Name: i.Name, Labels: labels, Target: target})
	if !errdefs.IsAlreadyExists(err) {
		return err
	}
	old, err := h.client.ImageService().Get(ctx, i.Name)
	if err == nil && old.Target.Digest != target.Digest {
		err = fmt.Errorf("the image %s has become another one meanwhile: %s", i.Name, old.Target.Digest)
	}
	return err
}

func (h *Host) makeContainer(ctx context.Context, o *peer.Offer, how Incoming) error {
	ctx = context.WithoutCancel(ctx)
	c := &o.Container
	var network string
	if c.Network != nil {
		var err error
		if network, err = c.Network.Encode(); err != nil {
			return err
		}
	}
	spec, err := editAnnotations(c.Spec, func(a map[string]string) {
		for _, key := range incomingAnnotations {
			delete(a, key)
		}
		added := askHooks(a, c.Network, c.Policies)
		for name, value := range c.Policies {
			if key := describe.OptionPrefix + name; a[key] == "" {
				added = append(added, key)
				a[key] = value
			}
		}
		if len(added) > 0 {
			a[annotationAdded] = strings.Join(added, ",")
		}
		if network != "" {
			a[annotationNetwork] = network
		}
		a[AnnotationIncoming] = how.Socket
		if how.From != "" {
			a[AnnotationFrom] = how.From
		}
		if how.TLS != "" {
			a[AnnotationTLS] = how.TLS
		} else {
			a[AnnotationInsecure] = "true"
		}
	})
	if err != nil {
		return err
	}
	labels := maps.Clone(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelIncoming] = o.Token
	holdRestart(labels)
	record := containers.Container{
		ID: c.ID, Labels: labels, Image: c.Image.Name,
		Runtime: containers.RuntimeInfo{Name: c.Runtime.Name},
		Spec:    &anypb.Any{TypeUrl: c.SpecType, Value: spec},
		// Both are needed for containerd to keep the snapshot.
		Snapshotter: c.Snapshot.Snapshotter, SnapshotKey: c.Snapshot.Key,
	}
	if options := c.Runtime.Options; options != nil {
		record.Runtime.Options = &anypb.Any{TypeUrl: options.Type, Value: options.Value}
	}
	for name, e := range c.Extensions {
		if record.Extensions == nil {
			record.Extensions = map[string]typeurl.Any{}
		}
		record.Extensions[name] = &anypb.Any{TypeUrl: e.Type, Value: e.Value}
	}
	_, err = h.client.ContainerService().Create(ctx, record)
	return err
}

// makeSnapshot unpacks the image, unless it is, and prepares the container's
// own layer on it.
func (h *Host) makeSnapshot(ctx context.Context, o *peer.Offer, _ Incoming) error {
	s := &o.Container.Snapshot
	snapshotter := h.client.SnapshotService(s.Snapshotter)
	if !h.unpacked(ctx, o) {
		record, err := h.client.ImageService().Get(ctx, o.Container.Image.Name)
		if err != nil {
			return err
		}
		img := client.NewImageWithPlatform(h.client, record, platforms.Default())
		diffs, err := img.RootFS(ctx)
		if err != nil {
			return err
		}
		if chain := identity.ChainID(diffs).String(); chain != s.Parent {
			return fmt.Errorf("the container's root filesystem was made from %s, the image unpacks to %s", s.Parent, chain)
		}
		if err := img.Unpack(ctx, s.Snapshotter); err != nil {
			return fmt.Errorf("unpack %s: %w", record.Name, err)
		}
	}
	ctx = context.WithoutCancel(ctx)
	labels := maps.Clone(s.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	prepare := snapshotter.Prepare
	if s.ReadOnly {
		prepare = snapshotter.View
	}
	_, err := prepare(ctx, s.Key, s.Parent, snapshots.WithLabels(labels))
	return err
}

// Copy is a container that is being moved to this host.
type Copy struct {
	h         *Host
	namespace string
	token     string
	task      client.Task
	id        string
}

func (h *Host) makeTask(ctx context.Context, o *peer.Offer) (*Copy, error) {
	config, found, _ := arrive(o.Container.Streams)
	if len(found) > 0 {
		return nil, &peer.RefusedError{Mismatches: found}
	}
	c, err := h.client.LoadContainer(ctx, o.Container.ID)
	if err != nil {
		return nil, err
	}
	// The task's own mounts and sockets are no business of the lease.
	task, err := newTask(leases.WithLease(ctx, ""), c, streams{config}.creator)
	if err != nil {
		return nil, fmt.Errorf("create the task of %s: %w", o.Container.ID, err)
	}
	return &Copy{h: h, namespace: o.Namespace, token: o.Token, task: task, id: o.Container.ID}, nil
}

// newTask waits for what a client has left that died: the shim of a task that it was
// deleting, which containerd keeps until it ends by itself, or a create that is still
// carried out, or undone.
func newTask(ctx context.Context, c client.Container, streams cio.Creator, opts ...client.NewTaskOpts) (client.Task, error) {
	for end := time.Now().Add(shimEndsWithin); ; {
		task, err := c.NewTask(ctx, streams, opts...)
		if !inTheWay(err) || time.Now().After(end) {
			return task, err
		}
		if _, there := c.Task(ctx, nil); !errdefs.IsNotFound(there) {
			return nil, err
		}
		select {
		case <-time.After(shimPoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// inTheWay: there is a task, or a bundle, of the container already. That of a bundle
// comes as a text only.
func inTheWay(err error) bool {
	return err != nil && (errdefs.IsAlreadyExists(err) || strings.HasSuffix(err.Error(), unix.EEXIST.Error()))
}

// Pid of the frame, and of the container's first process once it runs.
func (c *Copy) Pid() int { return int(c.task.Pid()) }

// Start has the shim fill the frame. It returns when the copy runs or when it
// failed. The end of ctx ends the waiting only.
func (c *Copy) Start(ctx context.Context) error {
	return c.task.Start(in(ctx, c.namespace))
}

// Finish makes a copy that runs a container like any other: nothing of it is
// undone from here on. It may be repeated. The container's own mark goes last:
// without it an image that still had one would be taken for a remains.
func (h *Host) Finish(ctx context.Context, namespace, id, token string) error {
	ctx = in(ctx, namespace)
	if err := h.keepImages(ctx, token); err != nil {
		return err
	}
	if err := h.endLeases(ctx, id, token); err != nil {
		return err
	}
	c, err := h.client.LoadContainer(ctx, id)
	if err == nil {
		err = c.Update(ctx, func(_ context.Context, _ *client.Client, r *containers.Container) error {
			spec, err := withoutIncoming(r.Spec.GetValue())
			r.Spec = &anypb.Any{TypeUrl: r.Spec.GetTypeUrl(), Value: spec}
			delete(r.Labels, LabelIncoming)
			releaseRestart(r.Labels)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return nil
}

// keepImages takes the move's label off the images that it brought.
func (h *Host) keepImages(ctx context.Context, token string) error {
	list, err := h.incomingImages(ctx, token)
	if err != nil {
		return err
	}
	for _, i := range list {
		delete(i.Labels, LabelIncoming)
		if _, err := h.client.ImageService().Update(ctx, i, "labels"); err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	return nil
}

// incomingImages are those that a move has brought, or with no token any move.
func (h *Host) incomingImages(ctx context.Context, token string) ([]images.Image, error) {
	filter := fmt.Sprintf("labels.%q", LabelIncoming)
	if token != "" {
		filter = fmt.Sprintf("labels.%q==%s", LabelIncoming, token)
	}
	list, err := h.client.ImageService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("images of move %s: %w", token, err)
	}
	return list, nil
}
