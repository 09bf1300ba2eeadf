// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/layers/kernel/rootfs"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// TestForgedTrees: an image writes to memory file systems of the new container
// only, wherever it says that its tree was.
func TestForgedTrees(t *testing.T) {
	p := tree(t, 4096)
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	disk := t.TempDir()
	for path, want := range map[string]string{
		disk: "mounts no memory file system there", "/": "mounts no memory file system there", "/proc": "mounts no memory file system there", "/dev": "mounts no memory file system there",
		"relative": "not an absolute path", p.Tmpfs + "/..": "not one that the kernel shows", p.Tmpfs + "/": "mounts no memory file system there",
	} {
		_, err := c.Import(forged(t, image, func(r *record.Record, m *state.FileTree) {
			if r.Kind == rootfs.KindTree {
				m.Path = []byte(path)
			}
		}), all...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if list, err := filepath.Glob(disk + "/*"); err != nil || len(list) > 0 {
		t.Errorf("%s holds %v: %v", disk, list, err)
	}
	for name, edit := range map[string]func(*record.Record, *state.FileTree){
		"another kind":       func(r *record.Record, m *state.FileTree) { m.Kind = 99 },
		"number 0":           func(r *record.Record, _ *state.FileTree) { r.Entity &= 1<<40 - 1 },
		"records left out":   func(r *record.Record, _ *state.FileTree) { r.Entity++ },
		"of another process": func(r *record.Record, _ *state.FileTree) { r.Process = 1 },
		"an unknown record":  func(r *record.Record, _ *state.FileTree) { r.Kind = 99 },
		"damaged items": func(r *record.Record, _ *state.FileTree) {
			if r.Kind == rootfs.KindItems {
				r.Payload = r.Payload[:len(r.Payload)-3]
			}
		},
	} {
		if _, err := c.Import(forged(t, image, edit), all...); err == nil || !strings.Contains(err.Error(), "rootfs") {
			t.Errorf("%s: %v", name, err)
		}
	}
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	n.Verify()
	if _, err := os.Stat(p.Tmpfs + "/run"); err == nil {
		t.Error("the host has the container's files")
	}
}

// forged is the image with changed records of this subsystem.
func forged(t *testing.T, image *kerneltest.Image, edit func(*record.Record, *state.FileTree)) *kerneltest.Image {
	t.Helper()
	out := &kerneltest.Image{Processes: image.Processes}
	for _, r := range image.Records {
		if r.Subsystem == rootfs.Name {
			r = &record.Record{Header: r.Header, Payload: r.Payload}
			m := &state.FileTree{}
			isTree := r.Kind == rootfs.KindTree
			if isTree {
				if err := proto.Unmarshal(r.Payload, m); err != nil {
					t.Fatal(err)
				}
			}
			edit(r, m)
			if isTree {
				b, err := proto.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				r.Payload = b
			}
			if err := r.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		out.Records = append(out.Records, r)
	}
	return out
}
