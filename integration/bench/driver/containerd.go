// SPDX-License-Identifier: Apache-2.0

package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Containerd is a runtime behind a daemon, driven through containerd's client.
// Images are in directories, so that the content store does not count.
type Containerd struct {
	client                                  *client.Client
	namespace, snapshotter, runtime, rootfs string
	args                                    []string
}

var _ Driver = (*Containerd)(nil)

// NewContainerd connects to the daemon at a socket. Containers run args from
// the container image named rootfs. The caller must Close.
func NewContainerd(address, namespace, snapshotter, runtime, rootfs string, args []string) (*Containerd, error) {
	c, err := client.New(address)
	if err != nil {
		return nil, err
	}
	return &Containerd{client: c, namespace: namespace, snapshotter: snapshotter, runtime: runtime, rootfs: rootfs, args: args}, nil
}

// Close ends the connection.
func (d *Containerd) Close() error { return d.client.Close() }

// Name implements Driver.
func (d *Containerd) Name() string { return d.runtime }

func (d *Containerd) context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.namespace)
}

// id keeps the containers of two runtimes apart.
func (d *Containerd) id(c *Container) string { return c.ID + "-" + d.runtime }

// Run implements Driver.
func (d *Containerd) Run(ctx context.Context, c *Container) error {
	_, err := d.start(ctx, c)
	return err
}

// Restore implements Driver. Create is everything up to containerd's Start.
func (d *Containerd) Restore(ctx context.Context, c *Container, image string) (Restored, error) {
	return d.start(ctx, c, client.WithRestoreImagePath(image))
}

func (d *Containerd) start(ctx context.Context, c *Container, opts ...client.NewTaskOpts) (r Restored, err error) {
	ctx = d.context(ctx)
	img, err := d.client.GetImage(ctx, d.rootfs)
	if err != nil {
		return r, err
	}
	// The container's record and snapshot are made ahead, as runc's bundle is.
	container, err := d.client.NewContainer(ctx, d.id(c),
		client.WithSnapshotter(d.snapshotter), client.WithImage(img), client.WithNewSnapshot(d.id(c), img),
		client.WithRuntime(d.runtime, nil),
		client.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs(d.args...), oci.WithHostNamespace(specs.NetworkNamespace)),
	)
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove(context.WithoutCancel(ctx), c))
		}
	}()
	started := time.Now()
	task, err := container.NewTask(ctx, cio.NullIO, opts...)
	r.Create = time.Since(started)
	if err != nil {
		return r, fmt.Errorf("create %s: %w", d.id(c), err)
	}
	started = time.Now()
	err = task.Start(ctx)
	r.Fill = time.Since(started)
	if err != nil {
		return r, fmt.Errorf("start %s: %w", d.id(c), err)
	}
	if c.Pid = int(task.Pid()); len(opts) == 0 {
		return r, nil
	}
	// A restored task of runc has its pid only now.
	status, err := d.client.TaskService().Get(ctx, getRequest(d.id(c)))
	if err != nil {
		return r, err
	}
	c.Pid = int(status.Process.Pid)
	return r, nil
}

// Checkpoint implements Driver, with the task service's own call: the client's
// would add an image of the root filesystem for every runtime but runc.
func (d *Containerd) Checkpoint(ctx context.Context, c *Container, image string, leave bool) (time.Duration, error) {
	ctx = d.context(ctx)
	request, err := checkpointRequest(d.id(c), &options.CheckpointOptions{Exit: !leave, ImagePath: image})
	if err != nil {
		return 0, err
	}
	started := time.Now()
	_, err = d.client.TaskService().Checkpoint(ctx, request)
	if err != nil {
		return 0, fmt.Errorf("checkpoint %s: %w", d.id(c), err)
	}
	return time.Since(started), nil
}

// Remove implements Driver.
func (d *Containerd) Remove(ctx context.Context, c *Container) error {
	ctx = d.context(ctx)
	container, err := d.client.LoadContainer(ctx, d.id(c))
	if err != nil {
		return err
	}
	task, err := container.Task(ctx, nil)
	if err == nil {
		_, err = task.Delete(ctx, client.WithProcessKill)
	}
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
}

func getRequest(id string) *tasks.GetRequest { return &tasks.GetRequest{ContainerID: id} }

func checkpointRequest(id string, opts *options.CheckpointOptions) (*tasks.CheckpointTaskRequest, error) {
	packed, err := typeurl.MarshalAnyToProto(opts)
	if err != nil {
		return nil, err
	}
	return &tasks.CheckpointTaskRequest{ContainerID: id, Options: packed}, nil
}
