// SPDX-License-Identifier: Apache-2.0

package variants

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/io-mig/mig/integration/internal/daemon"
	"github.com/io-mig/mig/integration/internal/itest"
)

func mounts(list ...specs.Mount) oci.SpecOpts { return oci.WithMounts(list) }

// TestBindMount: an open file of a volume, which outlives the container.
func TestBindMount(t *testing.T) {
	h := startHost(t, daemon.V24)
	volume := t.TempDir()
	v := variant{args: []string{"file", "/volume/log"}, spec: []oci.SpecOpts{
		mounts(specs.Mount{Type: "bind", Source: volume, Destination: "/volume", Options: []string{"rbind", "rw"}},
			specs.Mount{Type: "bind", Source: volume, Destination: "/again", Options: []string{"bind", "ro", "rslave"}}),
	}}
	b := h.run(t, "with-volume", v)
	b.lives("at first")
	before := b.facts()
	dir := b.checkpointExit()
	b.remove()
	r := h.restore(t, "with-volume-again", v, dir)
	r.lives("after the restore")
	before.copied(t, "after the restore", r.facts())
	r.remove()
	text, err := os.ReadFile(filepath.Join(volume, "log"))
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for line := range strings.Lines(string(text)) {
		if n := number(t, strings.TrimPrefix(strings.TrimSpace(line), "line ")); n < last {
			t.Errorf("line %d behind line %d", n, last)
		} else {
			last = n
		}
	}
}

// TestWritableLayer: the same with a file of the container's own root, through
// `ctr containers checkpoint --rw` and restore.
func TestWritableLayer(t *testing.T) {
	itest.EachVersion(t, func(t *testing.T, version daemon.Version) {
		h := startHost(t, version)
		b := h.run(t, "layer", variant{args: []string{"file", "/tmp/log"}})
		b.lives("at first")
		before := b.facts()
		h.Must(t, "containers", "checkpoint", "--rw", "--image", "--task", b.id, "mig.test/layer:saved")
		b.lives("after its checkpoint")
		b.remove()
		r := h.adopt(t, "layer-again", "mig.test/layer:saved")
		r.lives("after the restore")
		after := r.facts()
		if version == daemon.V16 {
			// Its ctr keeps the standard streams of the one who asks.
			for _, fd := range []string{"fd 0", "fd 1", "fd 2"} {
				delete(before, fd)
				delete(after, fd)
			}
		}
		before.copied(t, "after the restore", after)
		if lines := r.exec("wc", "-l", "/tmp/log"); number(t, strings.Fields(lines)[0]) < 3 {
			t.Errorf("/tmp/log has lost its lines: %s", lines)
		}
		r.remove()
	})
}

// scratch is a tmpfs of the container's own.
var scratch = mounts(specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/scratch", Options: []string{"nosuid", "size=8m", "mode=1777"}})

// TestTmpfs: what the container has put on its own tmpfs.
func TestTmpfs(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := variant{args: []string{"file", "/scratch/log"}, spec: []oci.SpecOpts{scratch}}
	b := h.run(t, "memory-disk", v)
	b.lives("at first")
	before := b.facts()
	dir := b.checkpointExit()
	b.remove()
	r := h.restore(t, "memory-disk-again", v, dir)
	r.lives("after the restore")
	before.copied(t, "after the restore", r.facts())
	r.remove()
}

// TestMountsMadeInside: what a container mounts while it runs is mounted again,
// or refused by name.
func TestMountsMadeInside(t *testing.T) {
	h := startHost(t, daemon.V24)
	v := variant{spec: []oci.SpecOpts{scratch, oci.WithAddedCapabilities([]string{"CAP_SYS_ADMIN"})}}
	b := h.run(t, "mounts", v)
	b.lives("at first")
	b.exec("sh", "-ec", "mkdir -p /scratch/in/side /scratch/proc /scratch/bound /run/file; echo x >/scratch/plain; touch /scratch/over;"+
		"mount -t tmpfs -o size=1m,nosuid,mode=750 mine /scratch/in/side; mkdir /scratch/in/side/deep; echo y >/scratch/in/side/deep/y;"+
		"mount -t tmpfs -o noexec two /scratch/in/side/deep; echo z >/scratch/in/side/deep/z; mount -o remount,ro,bind /scratch/in/side/deep;"+
		"mount -t proc proc /scratch/proc; mount --bind /scratch/in /scratch/bound; mount --bind /scratch/plain /scratch/over")
	const list = "grep /scratch /proc/self/mountinfo | sed 's/.* [0-9]*:[0-9]* //' | sort; find /scratch -path /scratch/proc -prune -o ! -type s -print | sort | xargs stat -c '%n %a %s %Y'; cat /scratch/over /scratch/in/side/deep/z /scratch/proc/1/comm"
	before := b.exec("sh", "-c", list)
	dir := b.checkpointExit()
	b.remove()
	r := h.restore(t, "mounts-again", v, dir)
	r.lives("after the restore")
	if after := r.exec("sh", "-c", list); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	out := r.exec("sh", "-c", "umount /scratch/in/side/deep && cat /scratch/in/side/deep/y; head -c 2000000 /dev/zero >/scratch/in/side/full || echo no room")
	if !strings.Contains(out, "y") || !strings.Contains(out, "no room") {
		t.Errorf("below the second mount, and beyond the limit of the first: %q", out)
	}
	// Without the capability the image gets none of it.
	poor := variant{spec: []oci.SpecOpts{scratch}}
	if x, err := h.create(t, "mounts-poor", poor, dir); err == nil {
		if err = x.start(); err == nil || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") {
			t.Errorf("without the capability: %v", err)
		}
		x.remove()
	}
	r.remove()

	for what, c := range map[string]struct{ script, want string }{
		"overlay":  {"mkdir -p /scratch/l /scratch/u /scratch/w /scratch/m; mount -t overlay -o lowerdir=/scratch/l,upperdir=/scratch/u,workdir=/scratch/w o /scratch/m", `mount of o \(overlay\) on /scratch/m.*not carried`},
		"hides":    {"mount -t tmpfs over /scratch", `mount of over \(tmpfs\) on /scratch.*hides a memory file system`},
		"stacked":  {"mkdir -p /scratch/s; mount -t tmpfs a /scratch/s; mount -t tmpfs b /scratch/s", `mount of a \(tmpfs\) on /scratch/s.*hides it`},
		"unmounts": {"umount /dev/mqueue; umount /scratch; mount -t ramfs r /scratch", `mount of r \(ramfs\)`},
	} {
		t.Run(what, func(t *testing.T) {
			b := h.run(t, "mounts-"+what, v)
			b.lives("at first")
			b.exec("sh", "-ec", c.script)
			b.refused(c.want)
			b.remove()
		})
	}
}
