// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
	"github.com/io-mig/mig/integration/internal/itest"
	"github.com/io-mig/mig/integration/internal/nerdctl"
)

// nerdctl's checkpoint exits by default and gives no options: its annotations
// in the spec have to tell the shim. Then the same container starts from it.
func TestCheckpointNerdctl(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		n := dial(t, host)
		removeLater(t, host, "redis")
		if err := n.Run(t.Context(), itest.Mig, image.Redis.Name, "redis", nil); err != nil {
			t.Fatal(err)
		}
		s := fill(t, host, "redis")
		dir := filepath.Join(t.TempDir(), "checkpoint")
		if err := n.CheckpointCreate(t.Context(), "redis", dir); err != nil {
			t.Fatal(err)
		}
		await(t, host, "redis", "STOPPED")
		flat(t, dir, keys*keySize)
		if err := n.StartCheckpoint(t.Context(), "redis", dir); err != nil {
			t.Fatal(err)
		}
		s.proven(t, host, "redis")
	})
}

// The label keeps it running.
func TestCheckpointNerdctlLeaveRunning(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		host := startHost(t, version)
		n := dial(t, host)
		removeLater(t, host, "redis")
		if err := n.Run(t.Context(), itest.Mig, image.Redis.Name, "redis", map[string]string{"io.mig/leave-running": "true"}); err != nil {
			t.Fatal(err)
		}
		s := fill(t, host, "redis")
		if err := n.CheckpointCreate(t.Context(), "redis", filepath.Join(t.TempDir(), "checkpoint")); err != nil {
			t.Fatal(err)
		}
		if got, err := n.Status(t.Context(), "redis"); err != nil || got != client.Running {
			t.Errorf("after the checkpoint it is %s, %v", got, err)
		}
		s.proven(t, host, "redis")
	})
}

func dial(t *testing.T, host *itest.Host) *nerdctl.Nerdctl {
	t.Helper()
	n, err := nerdctl.Dial(host.Address, host.Namespace, host.Snapshotter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}
