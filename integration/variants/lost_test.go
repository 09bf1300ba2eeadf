// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
)

// TestNamespaceState: what a container keeps in its IPC namespace is there after
// a restore, and what cannot be carried is refused by name.
func TestNamespaceState(t *testing.T) {
	h := startHost(t, daemon.V24)
	look := "cd /proc/sysvipc && cat shm msg sem; ls -l /dev/mqueue"
	for kind, want := range map[string]string{
		"shm": strconv.Itoa(0x5111), "msg": strconv.Itoa(0x5222), "sem": strconv.Itoa(0x5333), "mq": "witness",
	} {
		t.Run(kind, func(t *testing.T) {
			v := variant{args: []string{kind}}
			b := h.run(t, "ipc-"+kind, v)
			b.lives("at first")
			dir := b.checkpointExit()
			b.remove()
			r := h.restore(t, "ipc-"+kind+"-again", v, dir)
			r.lives("after the restore")
			if got := r.exec("sh", "-c", look); !strings.Contains(got, want) {
				t.Errorf("%s is not there any more:\n%s", want, got)
			}
			r.remove()
		})
	}
	// The host's are not the container's to lose.
	t.Run("host", func(t *testing.T) {
		v := variant{args: []string{"sem"}, spec: []oci.SpecOpts{oci.WithHostNamespace(specs.IPCNamespace)}}
		b := h.run(t, "ipc-of-host", v)
		b.lives("at first")
		dir := b.checkpointExit()
		b.remove()
		r := h.restore(t, "ipc-of-host-again", v, dir)
		r.lives("after the restore")
		r.remove()
		if out, err := exec.Command("ipcrm", "-S", "0x5333").CombinedOutput(); err != nil {
			t.Errorf("the host's semaphores are not there any more: %v: %s", err, out)
		}
	})
}

// TestTmpfsContent: files on the container's own tmpfs that nobody has open are
// refused by name, or dropped where the annotation says so.
func TestTmpfsContent(t *testing.T) {
	h := startHost(t, daemon.V24)
	b := h.run(t, "tmpfs", variant{spec: []oci.SpecOpts{scratch}})
	b.lives("at first")
	b.exec("sh", "-c", "mkdir -p /scratch/a/b && echo x >/scratch/a/kept && ln -s kept /scratch/a/link && echo y >/dev/shm/sem.z")
	b.refused(`tmpfs /scratch holds`, `/scratch/a/b\b`, `/scratch/a/kept`, `/scratch/a/link`, `/dev/shm/sem\.z`, `tmpfs=drop`)
	b.exec("sh", "-c", "rm -r /scratch/a /dev/shm/sem.z")
	b.checkpoint()
	b.remove()

	v := variant{spec: []oci.SpecOpts{scratch, annotate(map[string]string{"io.mig/tmpfs": "drop"})}}
	b = h.run(t, "tmpfs-drop", v)
	b.lives("at first")
	b.exec("sh", "-c", "echo x >/scratch/kept")
	dir := filepath.Join(t.TempDir(), "image")
	if err := b.tryCheckpoint(dir, true); err != nil {
		t.Fatal(err)
	}
	b.remove()
	r := h.restore(t, "tmpfs-drop-again", v, dir)
	r.lives("after the restore")
	if got := r.exec("ls", "/scratch"); got != "" {
		t.Errorf("/scratch has %q", got)
	}
	r.remove()
}
