// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Sizes of docs/image-format.md.
const (
	fileHeader   = 16
	recordHeader = 80
)

// entry is one record of an image's state file.
type entry struct {
	key     string // SUBSYSTEM/KIND
	number  int
	header  int    // offset of the header in mig.state
	file    string // where the payload is
	payload int    // and at which offset
	length  int
}

// entries reads an image's record headers as the format's page says, without
// the code under test.
func entries(t *testing.T, dir string) (all []entry) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "mig.state"))
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for at := fileHeader; ; {
		if len(b)-at < recordHeader {
			t.Fatalf("the state file ends at %d without an end marker", len(b))
		}
		h := b[at : at+recordHeader]
		if string(h[:4]) == "MEND" {
			return all
		}
		if string(h[:4]) != "MREC" {
			t.Fatalf("no record at offset %d", at)
		}
		e := entry{
			key:    fmt.Sprintf("%s/%d", bytes.TrimRight(h[40:72], "\x00"), le.Uint32(h[4:])),
			number: len(all), header: at, length: int(le.Uint32(h[12:])),
		}
		at += recordHeader
		if lane := le.Uint32(h[28:]); lane > 0 {
			e.file, e.payload = "mig.pages-"+strconv.Itoa(int(lane)), int(le.Uint64(h[32:]))
		} else {
			e.file, e.payload = "mig.state", at
			at += e.length
		}
		all = append(all, e)
	}
}

// copyImage copies an image so that a test can damage it.
func copyImage(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("cp", "-r", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
	return to
}

// patch changes one file of an image.
func patch(t *testing.T, dir, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// flip flips one bit.
func flip(t *testing.T, dir, name string, at int) {
	t.Helper()
	patch(t, dir, name, func(b []byte) []byte { b[at] ^= 1; return b })
}

// forge makes a hostile image whose checksums are right: see hack/forge.
func forge(t *testing.T, h *host, from string, edits ...string) string {
	t.Helper()
	program := build(t, "forge", h.Tree.Root(), "go", "build", "-o", output, "./hack/forge")
	to := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command(program, append([]string{from, to}, edits...)...).CombinedOutput(); err != nil {
		t.Fatalf("forge %v: %v: %s", edits, err, out)
	}
	return to
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
