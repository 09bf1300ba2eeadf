// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/hex"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden images again")

// TestGolden: what is written today is what was written when the format was
// fixed, and can be read. A change of these files is a change of the format:
// it needs a new version and a reader for the old one.
func TestGolden(t *testing.T) {
	inline, _ := sampleState(t, false)
	state, pages := sampleState(t, true)
	manifest, err := sampleManifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{
		"stream.mig": inline, StateName: state, PagesName(1): pages, ManifestName: manifest,
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is written now", path)
		}
	}
}

func TestGoldenReads(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m, err := DecodeManifest(bytes.NewReader(read(ManifestName)), ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	want := sampleRecords(t)
	state, pages := read(StateName), read(PagesName(1))
	d, err := NewReader(bytes.NewReader(state), Options{
		Name: StateName, Size: m.Files[0].Size, Lanes: []int64{m.Files[1].Size}, Subsystems: m.Names()})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	err = Verify(d, []io.ReaderAt{bytes.NewReader(pages)}, func(e Entry, err error) {
		if err != nil || e.Header != want[n].Header || e.Sum != want[n].Sum || e.Number != int64(n) {
			t.Errorf("record %d: %s %v, want %s", n, e.Header, err, want[n].Header)
		}
		n++
	})
	if err != nil || n != len(want) {
		t.Errorf("%d records: %v", n, err)
	}
	list, _, err := decode(read("stream.mig"), Options{})
	if err != nil || len(list) != len(want) {
		t.Fatalf("stream.mig: %d records, %v", len(list), err)
	}
	for i, r := range list {
		if err := r.Verify(); err != nil || r.Header != want[i].Header || !bytes.Equal(r.Payload, want[i].Payload) {
			t.Errorf("stream.mig: record %d is %s: %v", i, r.Header, err)
		}
	}
}

// TestDocumentedExample: the hex dumps of the format's page are the golden files.
func TestDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/image-format.md")
	if err != nil {
		t.Fatal(err)
	}
	state, _ := sampleState(t, true)
	manifest, err := sampleManifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{StateName: state, ManifestName: manifest} {
		dump := strings.TrimRight(hex.Dump(b), "\n")
		if !strings.Contains(string(page), "```\n"+dump+"\n```") {
			t.Errorf("docs/image-format.md does not show %s as\n%s", name, dump)
		}
	}
}
