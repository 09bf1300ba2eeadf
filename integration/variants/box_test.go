// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/itest"
)

// variant is a kind of container.
type variant struct {
	image string   // witnessImage if empty
	args  []string // of the witness, or a whole command for another image
	spec  []oci.SpecOpts
	// restored is what the spec of a restored container has besides.
	restored []oci.SpecOpts
	// snapshot makes the root file system; nil is the plain way.
	snapshot func(id string, img client.Image) client.NewContainerOpts
	io       cio.Creator // nil: no standard streams
}

// box is a container of a variant.
type box struct {
	t       *testing.T
	host    *host
	id      string
	variant variant
	task    client.Task
	pid     int // of its init, in our pid namespace
}

// editSpec is the shape of most options here.
func editSpec(edit func(*specs.Spec)) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		edit(s)
		return nil
	}
}

func (h *host) ctx() context.Context {
	return namespaces.WithNamespace(context.Background(), h.Namespace)
}

// create makes a container and its task, of an image directory if there is one.
func (h *host) create(t *testing.T, id string, v variant, from string) (*box, error) {
	t.Helper()
	if v.image == "" {
		v.image = witnessImage
	}
	img, err := h.client.GetImage(h.ctx(), v.image)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { h.Remove(id) })
	spec := []oci.SpecOpts{oci.WithImageConfig(img)}
	switch {
	case v.image == witnessImage:
		spec = append(spec, oci.WithProcessArgs(append([]string{"/witness"}, v.args...)...))
	case len(v.args) > 0:
		spec = append(spec, oci.WithProcessArgs(v.args...))
	}
	spec = append(spec, v.spec...)
	if from != "" {
		spec = append(spec, v.restored...)
	}
	snapshot := client.WithNewSnapshot(id, img)
	if v.snapshot != nil {
		snapshot = v.snapshot(id, img)
	}
	c, err := h.client.NewContainer(h.ctx(), id, client.WithSnapshotter(h.Snapshotter), client.WithImage(img),
		snapshot, client.WithRuntime(itest.Mig, nil), client.WithNewSpec(spec...))
	if err != nil {
		return nil, err
	}
	b := &box{t: t, host: h, id: id, variant: v}
	streams := v.io
	if streams == nil {
		streams = cio.NullIO
	}
	var opts []client.NewTaskOpts
	if from != "" {
		opts = append(opts, client.WithRestoreImagePath(from))
	}
	if b.task, err = c.NewTask(h.ctx(), streams, opts...); err != nil {
		return nil, err
	}
	b.pid = int(b.task.Pid())
	return b, nil
}

// start runs a container whose task was created.
func (b *box) start() error {
	if err := b.task.Start(b.host.ctx()); err != nil {
		return err
	}
	b.pid = int(b.task.Pid())
	return nil
}

// run makes and starts a container.
func (h *host) run(t *testing.T, id string, v variant) *box {
	t.Helper()
	b, err := h.create(t, id, v, "")
	if err == nil {
		err = b.start()
	}
	if err != nil {
		t.Fatalf("run %s: %v", id, err)
	}
	return b
}

// restore makes a container of an image directory and starts it.
func (h *host) restore(t *testing.T, id string, v variant, dir string) *box {
	t.Helper()
	b, err := h.create(t, id, v, dir)
	if err == nil {
		err = b.start()
	}
	if err != nil {
		t.Fatalf("restore %s: %v", id, err)
	}
	return b
}

// checkpoint is `ctr tasks checkpoint --image-path` into a new directory; the
// container runs on.
func (b *box) checkpoint() string { b.t.Helper(); return b.mustCheckpoint(false) }

// checkpointExit is that with --exit; it waits for the end.
func (b *box) checkpointExit() string {
	b.t.Helper()
	dir := b.mustCheckpoint(true)
	b.await(client.Stopped)
	return dir
}

func (b *box) mustCheckpoint(exit bool) string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "image")
	if err := b.tryCheckpoint(dir, exit); err != nil {
		b.t.Fatalf("checkpoint %s: %v", b.id, err)
	}
	return dir
}

// checkpoints numbers the image records that the client makes beside the
// directory: its own names have seconds in them, and we are faster.
var checkpoints atomic.Int64

func (b *box) tryCheckpoint(dir string, exit bool) error {
	_, err := b.task.Checkpoint(b.host.ctx(), client.WithCheckpointName(fmt.Sprint("mig.test/checkpoint:", checkpoints.Add(1))),
		func(i *client.CheckpointTaskInfo) error {
			i.Options = &options.CheckpointOptions{ImagePath: dir, Exit: exit}
			return nil
		})
	return err
}

// status is what containerd says of the task.
func (b *box) status() client.ProcessStatus {
	b.t.Helper()
	s, err := b.task.Status(b.host.ctx())
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Status
}

func (b *box) await(want client.ProcessStatus) {
	b.t.Helper()
	for end := time.Now().Add(15 * time.Second); b.status() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s is %s, want %s", b.id, b.status(), want)
		}
	}
}

// exec runs a command in the container and returns its output.
func (b *box) exec(command ...string) string {
	b.t.Helper()
	id := fmt.Sprint("exec", time.Now().UnixNano())
	return strings.TrimSpace(b.host.Must(b.t, append([]string{"tasks", "exec", "--exec-id", id, b.id}, command...)...).Stdout)
}

// bundle is the container's directory under the daemon's state.
func (b *box) bundle() string {
	return filepath.Join(b.host.Dir, "state", "io.containerd.runtime.v2.task", b.host.Namespace, b.id)
}

// remove ends the container.
func (b *box) remove() { b.host.Remove(b.id) }
