// SPDX-License-Identifier: Apache-2.0

package live

import (
	"strings"
	"testing"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/image"
)

// read returns a file of a container.
func (h *host) read(t *testing.T, id, file string) string {
	t.Helper()
	return strings.TrimSpace(h.exec(t, id, "cat", file))
}

// TestFilesMove: what a container has changed in its root, and a volume of which
// the content goes along, are on the other host, and back.
func TestFilesMove(t *testing.T) {
	for _, snapshotter := range []string{"overlayfs", "native"} {
		t.Run(snapshotter, func(t *testing.T) {
			w := newWorld(t, daemon.V24, image.Busybox)
			if snapshotter == "overlayfs" && w.alpha.d.Snapshotter != snapshotter {
				t.Skip("no overlay can be mounted here")
			}
			w.alpha.d.Snapshotter, w.beta.d.Snapshotter = snapshotter, snapshotter
			if err := w.alpha.Run("mkdir -p /run/data && echo one >/run/data/file"); err != nil {
				t.Fatal(err)
			}
			const id = "writer"
			w.d(w.alpha, "--mount", "type=bind,src=/run/data,dst=/mnt,options=rbind:rw", id)
			w.alpha.exec(t, id, "sh", "-c", "echo root >/etc/new; rm /etc/hostname; mkdir -p /var/lib/deep/er; echo two >>/mnt/file")
			w.refused(w.alpha, "not moved", id, w.beta.IP) // nobody said what becomes of the volume
			from, to := w.alpha, w.beta
			for _, want := range []string{"one\ntwo", "one\ntwo\nthree"} {
				w.mustMove(from, "--copy-volume", "/mnt", "--policy", "volume-content=replace", id, to.IP)
				w.one(id, to, from)
				if got := to.read(t, id, "/etc/new"); got != "root" {
					t.Errorf("the root has %q", got)
				}
				if got := to.read(t, id, "/mnt/file"); got != want {
					t.Errorf("the volume has %q, want %q", got, want)
				}
				if got := to.exec(t, id, "sh", "-c", "ls -d /etc/hostname /var/lib/deep/er 2>/dev/null; true"); strings.TrimSpace(got) != "/var/lib/deep/er" {
					t.Errorf("found %q", got)
				}
				to.exec(t, id, "sh", "-c", "echo three >>/mnt/file")
				from, to = to, from
			}
			// The policies were for those moves only.
			info := w.alpha.d.Must(t, "containers", "info", id).Stdout
			if strings.Contains(info, "io.mig/") {
				t.Errorf("marks of a move are left:\n%s", info)
			}
			// Its shim, which was told them when it arrived, does not know them any more.
			w.refused(from, "choose copy-volume=/mnt", id, to.IP)
			w.mustMove(from, "--shared-volume", "/mnt", id, to.IP)
			w.one(id, to, from)
		})
	}
}

// exec runs a command in a container and returns what it prints.
func (h *host) exec(t *testing.T, id string, command ...string) string {
	t.Helper()
	args := []string{"tasks", "exec", "--exec-id", execID(), id}
	return h.d.Must(t, append(args, command...)...).Stdout
}
