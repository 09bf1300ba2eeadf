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

// TestTmpfsContent: files on the container's own tmpfs are restored, or dropped
// where the annotation says so.
func TestTmpfsContent(t *testing.T) {
	h := startHost(t, daemon.V24)
	const list = "cd / && find scratch run dev/shm dev -xdev ! -type s ! -path dev/pts ! -path dev/mqueue | sort | xargs stat -c '%n %a %u:%g %h %s %t:%T %Y' && cat /scratch/a/kept /run/app/pid"
	v := variant{spec: []oci.SpecOpts{scratch}}
	b := h.run(t, "tmpfs", v)
	b.lives("at first")
	b.exec("sh", "-c", "mkdir -p /scratch/a/b /run/app && echo x >/scratch/a/kept && ln /scratch/a/kept /scratch/hard && ln -s kept /scratch/a/link &&"+
		"echo y >/dev/shm/sem.z && echo 1 >/run/app/pid && chown 12:34 /run/app/pid && chmod 4711 /run/app/pid && mkfifo /scratch/fifo &&"+
		"echo z >/dev/made && ln -s made /dev/also && mknod /dev/nul2 c 1 3 && rm /dev/full")
	before := b.exec("sh", "-c", list)
	dir := b.checkpointExit()
	b.remove()
	r := h.restore(t, "tmpfs-again", v, dir)
	r.lives("after the restore")
	if after := r.exec("sh", "-c", list); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	r.remove()

	v = variant{spec: []oci.SpecOpts{scratch, annotate(map[string]string{"io.mig/tmpfs": "drop"})}}
	b = h.run(t, "tmpfs-drop", v)
	b.lives("at first")
	b.exec("sh", "-c", "echo x >/scratch/kept")
	dir = filepath.Join(t.TempDir(), "image")
	if err := b.tryCheckpoint(dir, true); err != nil {
		t.Fatal(err)
	}
	b.remove()
	r = h.restore(t, "tmpfs-drop-again", v, dir)
	r.lives("after the restore")
	if got := r.exec("ls", "/scratch"); got != "" {
		t.Errorf("/scratch has %q", got)
	}
	r.remove()
}

// TestHostName: a name that the container gave itself is there after a restore,
// also where the specification says another.
func TestHostName(t *testing.T) {
	h := startHost(t, daemon.V24)
	for name, spec := range map[string][]oci.SpecOpts{
		"of-the-host": {oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})},
		"of-the-spec": {oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"}), oci.WithHostname("specified")},
	} {
		t.Run(name, func(t *testing.T) {
			v := variant{spec: spec}
			b := h.run(t, "named-"+name, v)
			b.exec("hostname", "chosen")
			b.lives("at first")
			dir := b.checkpointExit()
			b.remove()
			r := h.restore(t, "named-"+name+"-again", v, dir)
			r.lives("after the restore")
			if got := r.exec("hostname"); got != "chosen" {
				t.Errorf("it is called %q", got)
			}
			r.remove()
		})
	}
}
