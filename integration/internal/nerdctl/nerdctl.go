// SPDX-License-Identifier: Apache-2.0

// Package nerdctl makes the calls of nerdctl's run, checkpoint and start
// through containerd's client, as nerdctl itself cannot be installed from a
// package. What it leaves out (volumes, logs) no checkpoint sees; networks are what
// its hooks make of them (WithHooks).
package nerdctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Nerdctl talks to one containerd.
type Nerdctl struct {
	client      *client.Client
	namespace   string
	snapshotter string
}

// Dial connects to the containerd at a socket. The caller must Close.
func Dial(address, namespace, snapshotter string) (*Nerdctl, error) {
	c, err := client.New(address)
	if err != nil {
		return nil, err
	}
	return &Nerdctl{client: c, namespace: namespace, snapshotter: snapshotter}, nil
}

// Close ends the connection.
func (n *Nerdctl) Close() error { return n.client.Close() }

// Run is `nerdctl run -d --runtime RUNTIME --name ID IMAGE`. Labels appear in
// the spec as annotations, as nerdctl copies them there.
func (n *Nerdctl) Run(ctx context.Context, runtime, image, id string, labels map[string]string, opts ...oci.SpecOpts) error {
	ctx = namespaces.WithNamespace(ctx, n.namespace)
	img, err := n.client.GetImage(ctx, image)
	if err != nil {
		return err
	}
	annotations := map[string]string{"nerdctl/namespace": n.namespace, "nerdctl/name": id, "nerdctl/hostname": id}
	for key, value := range labels {
		annotations[key] = value
	}
	container, err := n.client.NewContainer(ctx, id,
		client.WithSnapshotter(n.snapshotter),
		client.WithImage(img),
		client.WithNewSnapshot(id, img),
		client.WithRuntime(runtime, nil),
		client.WithContainerLabels(annotations),
		client.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(img), oci.WithAnnotations(annotations)}, opts...)...),
	)
	if err != nil {
		return err
	}
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	return task.Start(ctx)
}

// CheckpointCreate is `nerdctl checkpoint create ID` into a directory. A
// runtime other than runc's gets no options from nerdctl.
func (n *Nerdctl) CheckpointCreate(ctx context.Context, id, dir string) error {
	ctx = namespaces.WithNamespace(ctx, n.namespace)
	_, task, err := n.task(ctx, id)
	if err != nil {
		return err
	}
	image, err := task.Checkpoint(ctx)
	if err != nil {
		return err
	}
	unpacked := n.unpack(ctx, image.Target(), dir)
	return errors.Join(unpacked, n.client.ImageService().Delete(ctx, image.Name()))
}

// unpack extracts the checkpoint of an image's index into dir.
func (n *Nerdctl) unpack(ctx context.Context, index v1.Descriptor, dir string) error {
	store := n.client.ContentStore()
	raw, err := content.ReadBlob(ctx, store, index)
	if err != nil {
		return err
	}
	var decoded v1.Index
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return err
	}
	for _, manifest := range decoded.Manifests {
		if manifest.MediaType != images.MediaTypeContainerd1Checkpoint {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		reader, err := store.ReaderAt(ctx, manifest)
		if err != nil {
			return err
		}
		defer reader.Close()
		_, err = archive.Apply(ctx, dir, content.NewReader(reader))
		return err
	}
	return fmt.Errorf("the index of the checkpoint has no %s", images.MediaTypeContainerd1Checkpoint)
}

// StartCheckpoint is `nerdctl start --checkpoint DIR ID` of a container whose
// task has ended.
func (n *Nerdctl) StartCheckpoint(ctx context.Context, id, dir string) error {
	ctx = namespaces.WithNamespace(ctx, n.namespace)
	container, err := n.client.LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	if old, err := container.Task(ctx, nil); err == nil {
		if _, err := old.Delete(ctx); err != nil {
			return fmt.Errorf("delete the ended task: %w", err)
		}
	}
	// Without a lease the blob may be collected before the task is made.
	ctx, release, err := n.client.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = release(context.WithoutCancel(ctx)) }()
	checkpoint, err := n.pack(ctx, dir)
	if err != nil {
		return err
	}
	task, err := container.NewTask(ctx, cio.NullIO, func(_ context.Context, _ *client.Client, info *client.TaskInfo) error {
		info.Checkpoint = checkpoint
		return nil
	})
	if err != nil {
		return err
	}
	return task.Start(ctx)
}

// pack stores a checkpoint directory as a blob and describes it.
func (n *Nerdctl) pack(ctx context.Context, dir string) (*types.Descriptor, error) {
	reader := archive.Diff(ctx, "", dir)
	defer reader.Close()
	writer, err := content.OpenWriter(ctx, n.client.ContentStore(), content.WithRef("checkpoint-"+dir),
		content.WithDescriptor(v1.Descriptor{MediaType: images.MediaTypeContainerd1Checkpoint}))
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	size, err := io.Copy(writer, reader)
	if err != nil {
		return nil, err
	}
	digest := writer.Digest()
	// The checkpoint that this directory was made of may still be there.
	if err := writer.Commit(ctx, size, digest); err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return &types.Descriptor{MediaType: images.MediaTypeContainerd1Checkpoint, Digest: digest.String(), Size: size}, nil
}

// Status returns the status of a container's task.
func (n *Nerdctl) Status(ctx context.Context, id string) (client.ProcessStatus, error) {
	ctx = namespaces.WithNamespace(ctx, n.namespace)
	_, task, err := n.task(ctx, id)
	if err != nil {
		return client.Unknown, err
	}
	status, err := task.Status(ctx)
	return status.Status, err
}

func (n *Nerdctl) task(ctx context.Context, id string) (client.Container, client.Task, error) {
	container, err := n.client.LoadContainer(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	task, err := container.Task(ctx, nil)
	return container, task, err
}
