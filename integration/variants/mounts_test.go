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
	before.same(t, "after the restore", r.facts())
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
		before.same(t, "after the restore", after)
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
	before.same(t, "after the restore", r.facts())
	r.remove()
}
