// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/io-mig/mig/integration/internal/daemon"
)

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// adopt restores with ctr, as a person does, from an image in the store.
func (h *host) adopt(t *testing.T, id, ref string) *box {
	t.Helper()
	t.Cleanup(func() { h.Remove(id) })
	h.Must(t, "containers", "restore", "--rw", "--live", id, ref)
	c, err := h.client.LoadContainer(h.ctx(), id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.Task(h.ctx(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &box{t: t, host: h, id: id, task: task, pid: int(task.Pid())}
}

// TestRootfsBetweenCreateAndStart is what CRI's restore does: the daemon unpacks
// the difference of the root file system into the bundle after it has created
// the task, and starts it then (core/runtime/v2/shim.go). The pid that Create
// told is that of the restored process.
func TestRootfsBetweenCreateAndStart(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := variant{args: []string{"file", "/tmp/log"}}
	b := h.run(t, "pod", v)
	b.lives("at first")
	dir := b.checkpointExit()
	log, err := os.ReadFile(filepath.Join(b.bundle(), "rootfs/tmp/log"))
	if err != nil {
		t.Fatal(err)
	}
	b.remove()
	r, err := h.create(t, "pod-again", v, dir)
	if err != nil {
		t.Fatal(err)
	}
	created := r.pid
	if got := r.status(); got != client.Created {
		t.Errorf("it is %s before its start", got)
	}
	if err := os.WriteFile(filepath.Join(r.bundle(), "rootfs/tmp/log"), log, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := r.start(); err != nil {
		t.Fatal(err)
	}
	r.lives("after the restore")
	if r.pid != created {
		t.Errorf("pid %d was created and %d runs", created, r.pid)
	}
	if again, err := os.ReadFile(filepath.Join(r.bundle(), "rootfs/tmp/log")); err != nil || !strings.HasPrefix(string(again), string(log)) {
		t.Errorf("the file does not go on where it was: %v", err)
	}
	r.remove()
}

// TestNeverStarted: a restore that is created and then deleted leaves nothing,
// which the host checks, and its image can be used again.
func TestNeverStarted(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "pod", variant{})
	b.lives("at first")
	dir := b.checkpointExit()
	b.remove()
	r, err := h.create(t, "pod-again", variant{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.task.Delete(h.ctx(), client.WithProcessKill); err != nil {
		t.Errorf("delete of a created task: %v", err)
	}
	r.remove()
	r = h.restore(t, "pod-third", variant{}, dir)
	r.lives("after the restore")
	r.remove()
}

// annotate adds OCI annotations, as nerdctl and CRI do.
func annotate(pairs map[string]string) oci.SpecOpts {
	return oci.Compose(func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		for k, v := range pairs {
			s.Annotations[k] = v
		}
		return nil
	})
}

// TestNerdctlAnnotations: without options, which nerdctl does not send to us,
// its annotations decide what becomes of the container.
func TestNerdctlAnnotations(t *testing.T) {
	h := startHost(t, daemon.V24)
	for name, test := range map[string]struct {
		annotations map[string]string
		want        client.ProcessStatus
	}{
		"nerdctl":          {map[string]string{"nerdctl/name": "x"}, client.Stopped},
		"nerdctl-leave":    {map[string]string{"nerdctl/name": "x", "io.mig/leave-running": "true"}, client.Running},
		"nerdctl-no-leave": {map[string]string{"nerdctl/name": "x", "io.mig/leave-running": "false"}, client.Stopped},
		"nobody":           {nil, client.Running},
		"cri":              {map[string]string{"io.kubernetes.cri.container-type": "container"}, client.Running},
	} {
		t.Run(name, func(t *testing.T) {
			b := h.run(t, name, variant{spec: []oci.SpecOpts{annotate(test.annotations)}})
			b.lives("at first")
			if _, err := b.task.Checkpoint(h.ctx()); err != nil {
				t.Fatal(err)
			}
			b.await(test.want)
			if test.want == client.Running {
				b.lives("after its checkpoint")
			}
			b.remove()
		})
	}
}
