// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestEveryBlobIsItsDigest reads an archive back as an importer does.
func TestEveryBlobIsItsDigest(t *testing.T) {
	path, err := Busybox.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, content)
	if len(files["index.json"]) == 0 || len(files["oci-layout"]) == 0 {
		t.Fatal("index.json or oci-layout is missing")
	}
	blobs := 0
	for name, blob := range files {
		if want, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			blobs++
			if got := digest.FromBytes(blob).Encoded(); got != want {
				t.Errorf("blob %s has digest %s", want, got)
			}
		}
	}
	if blobs != 3 {
		t.Errorf("%d blobs, want layer, config and manifest", blobs)
	}
}

func TestProgramComesWithItsLibraries(t *testing.T) {
	root, err := Redis.layer()
	if err != nil {
		t.Fatal(err)
	}
	files := untar(t, root)
	loader, libc := false, false
	for name := range files {
		loader = loader || strings.Contains(name, "ld-linux")
		libc = libc || strings.HasSuffix(name, "/libc.so.6")
	}
	if _, ok := files["usr/bin/redis-server"]; !ok || !loader || !libc {
		t.Errorf("redis-server %v, loader %v, libc %v: want all three", ok, loader, libc)
	}
}

func untar(t *testing.T, content []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}
