// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestMovable: what somebody else would start anew on this host when it has left is
// refused, and so is what has no files that could go along.
func TestMovable(t *testing.T) {
	good := containers.Container{ID: "web", Runtime: containers.RuntimeInfo{Name: Runtime}, Snapshotter: "overlayfs", SnapshotKey: "web", Image: "web:1"}
	if err := movable(&good, &specs.Spec{}); err != nil {
		t.Error(err)
	}
	for want, edit := range map[string]func(*containers.Container){
		"dockerd": func(c *containers.Container) {
			c.Labels = map[string]string{labelDocker: "/var/run/docker/containerd/web"}
		},
		"runc":        func(c *containers.Container) { c.Runtime.Name = "io.containerd.runc.v2" },
		"pod sandbox": func(c *containers.Container) { c.SandboxID = "pod" },
		"no snapshot": func(c *containers.Container) { c.SnapshotKey = "" },
		"no image":    func(c *containers.Container) { c.Image = "" },
	} {
		c := good
		edit(&c)
		if err := movable(&c, &specs.Spec{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestHeldRestart: the label by which containerd finds containers that it is to start
// anew has another name on the way, and its own afterwards.
func TestHeldRestart(t *testing.T) {
	const status = "containerd.io/restart.status"
	labels := map[string]string{"a": "b"}
	if holdRestart(labels) || len(labels) != 1 {
		t.Errorf("without a policy: %v", labels)
	}
	labels[status] = "running"
	for range 2 {
		if !holdRestart(labels) || labels[status] != "" || len(labels) != 2 {
			t.Errorf("held: %v", labels)
		}
	}
	for range 2 {
		if releaseRestart(labels); labels[status] != "running" || len(labels) != 2 {
			t.Errorf("released: %v", labels)
		}
	}
}
