// SPDX-License-Identifier: Apache-2.0

package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/io-mig/mig/layers/kernel/file"
	"github.com/io-mig/mig/layers/kernel/kerneltest"
	"github.com/io-mig/mig/spec/record"
	"github.com/io-mig/mig/spec/state"
)

// A forged image may not write, by way of the content of a named file, to what
// the frame may write to and the container may not.
func TestForgedNamesOutsideOfATmpfs(t *testing.T) {
	p := program(t, "tmpfs.c")
	p.Tmpfs = p.Args[0]
	c := kerneltest.Start(t, p)
	image, err := c.Export(false, all...)
	if err != nil {
		t.Fatal(err)
	}
	c.Stop()
	disk := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(disk, []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/proc/self/mem", "/proc/self/comm", "/dev/null", disk} {
		_, err := c.Import(renamed(t, image, path), all...)
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "no regular file on a tmpfs") {
			t.Errorf("the content of %s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(disk); err != nil || string(b) != "as it was" {
		t.Errorf("the refused file holds %q now: %v", b, err)
	}
	n, err := c.Import(image, all...)
	if err != nil {
		t.Fatal(err)
	}
	n.Verify()
}

// renamed is the image with another path for its named file.
func renamed(t *testing.T, image *kerneltest.Image, path string) *kerneltest.Image {
	t.Helper()
	out := &kerneltest.Image{Processes: image.Processes}
	found := false
	for _, r := range image.Records {
		if r.Subsystem == file.Name && r.Kind == file.KindObject {
			m := &state.FileObject{}
			if err := proto.Unmarshal(r.Payload, m); err != nil {
				t.Fatal(err)
			}
			found = found || m.Named
			m.Path = path
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			r = &record.Record{Header: r.Header, Payload: b}
			if err := r.Seal(); err != nil {
				t.Fatal(err)
			}
		}
		out.Records = append(out.Records, r)
	}
	if !found {
		t.Fatal("the image holds no named file")
	}
	return out
}
