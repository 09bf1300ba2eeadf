// SPDX-License-Identifier: Apache-2.0

package directory

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
	"golang.org/x/sys/unix"
)

// newWriter begins an image that has its manifest.
func newWriter(t *testing.T, path string, o Options) *Writer {
	t.Helper()
	w, err := Create(path, o)
	if err != nil {
		t.Fatal(err)
	}
	body, err := mediumtest.Manifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Command(t.Context(), record.Command{Verb: medium.VerbManifest, Body: body}); err != nil {
		t.Fatal(err)
	}
	return w
}

// writeOne writes an image with one small and one large record.
func writeOne(t *testing.T, path string) {
	t.Helper()
	w := newWriter(t, path, Options{})
	for i, n := range []int{100, 100_000} {
		if err := w.PushData(t.Context(), mediumtest.Record(i, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, path string) string {
	t.Helper()
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestFilesAndModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "image")
	w := newWriter(t, path, Options{})
	if err := w.PushData(t.Context(), mediumtest.Record(1, 100_000)); err != nil {
		t.Fatal(err)
	}
	if got := names(t, path); got != "" {
		t.Errorf("before Flush the directory shows %s", got)
	}
	if err := errors.Join(w.PushData(t.Context(), mediumtest.Record(2, 1)), w.Flush(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, path), "mig.manifest mig.pages-1 mig.state"; got != want {
		t.Errorf("files %s, want %s", got, want)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v %v, want mode 0700", st.Mode(), err)
	}
	for _, name := range []string{image.ManifestName, image.StateName, image.PagesName(1)} {
		st, err := os.Lstat(filepath.Join(path, name))
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v %v, want a regular file of mode 0600", name, st.Mode(), err)
		}
	}
}

func TestExistingImageIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	writeOne(t, path)
	before := names(t, path)
	if _, err := Create(path, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("a second image: %v, want ErrExists", err)
	}
	if after := names(t, path); after != before {
		t.Errorf("files were %s, are %s", before, after)
	}
	if i, err := OpenImage(path); err != nil {
		t.Error(err)
	} else if err := errors.Join(i.Verify(nil), i.Close()); err != nil {
		t.Error(err)
	}
}

func TestSecondWriterIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	w := newWriter(t, path, Options{})
	if _, err := Create(path, Options{}); err == nil || !strings.Contains(err.Error(), "another checkpoint") {
		t.Errorf("a second writer: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory that Create made is left: %v", err)
	}
}

func TestLeftOversAreSwept(t *testing.T) {
	path := t.TempDir()
	for _, name := range []string{"mig.state", "mig.pages-1", "mig.pages-7", ".mig-0123.tmp", "other"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeOne(t, path)
	if got, want := names(t, path), "mig.manifest mig.pages-1 mig.state other"; got != want {
		t.Errorf("files %s, want %s", got, want)
	}
}

func TestForeignDirectoriesAreRefused(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path, Options{}); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a directory that others can write to: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(link, Options{}); err == nil {
		t.Error("a symbolic link was followed")
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(path, 0o700), os.Chown(path, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(path, Options{}); err == nil || !strings.Contains(err.Error(), "12345") {
			t.Errorf("somebody else's directory: %v", err)
		}
	}
}

// TestHostileFiles: what is read must be regular files, and nothing may block.
func TestHostileFiles(t *testing.T) {
	for _, name := range []string{image.ManifestName, image.StateName, image.PagesName(1)} {
		for kind, replace := range map[string]func(path string) error{
			"symlink":   func(p string) error { return errors.Join(os.Rename(p, p+"x"), os.Symlink(p+"x", p)) },
			"fifo":      func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) },
			"directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		} {
			path := filepath.Join(t.TempDir(), "image")
			writeOne(t, path)
			if err := replace(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { _, err := OpenImage(path); done <- err }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), name) {
					t.Errorf("%s is a %s: %v", name, kind, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s is a %s: open hangs", name, kind)
			}
		}
	}
}

func TestDefectsAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	writeOne(t, path)
	pages := filepath.Join(path, image.PagesName(1))
	b, err := os.ReadFile(pages)
	if err != nil {
		t.Fatal(err)
	}
	b[5000] ^= 1
	if err := os.WriteFile(pages, b, 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := OpenImage(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	var seen, bad int
	err = i.Verify(func(_ image.Entry, err error) {
		seen++
		if err != nil {
			bad++
		}
	})
	if seen != 2 || bad != 1 {
		t.Errorf("%d records, %d of them damaged, want 2 and 1", seen, bad)
	}
	var place *image.Error
	if !errors.As(err, &place) || place.Record != 1 || place.File != image.StateName || !errors.Is(err, image.ErrChecksum) {
		t.Errorf("verify: %v", err)
	}
	var sum *record.ChecksumError
	if !errors.As(err, &sum) || sum.Header.Subsystem != "memory" {
		t.Errorf("verify: %v, want the record's ChecksumError inside", err)
	}
	importerNamesThePlace(t, path)
}

// importerNamesThePlace: who imports verifies, and must know where the record
// came from.
func importerNamesThePlace(t *testing.T, path string) {
	t.Helper()
	r, err := NewReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var damage *record.ChecksumError
	for damage == nil {
		rec, release, err := r.PopData(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		errors.As(rec.Verify(), &damage)
		release()
	}
	if damage.From.Number != 1 || damage.From.Offset == 0 || !strings.HasPrefix(damage.Error(), damage.From.File+": record 1: offset ") {
		t.Errorf("the damage is %v", damage)
	}
}

func TestOptions(t *testing.T) {
	for query, want := range map[string]Options{
		"": {}, "sync=true": {}, "sync=false": {NoSync: true}, "sync=0&lanes=3": {NoSync: true, Lanes: 3},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseOptions(values); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", query, got, err, want)
		}
	}
	for _, bad := range []string{"sync=maybe", "lanes=0", "lanes=65", "lanes=x", "other=1"} {
		values, _ := url.ParseQuery(bad)
		if _, err := ParseOptions(values); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
