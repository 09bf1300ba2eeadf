// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/io-mig/mig/layers/medium"
	"github.com/io-mig/mig/layers/medium/directory"
	"github.com/io-mig/mig/layers/medium/mediumtest"
	"github.com/io-mig/mig/layers/medium/pipe"
	"github.com/io-mig/mig/spec/image"
	"github.com/io-mig/mig/spec/record"
)

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func manifest(t *testing.T, w medium.Medium) {
	t.Helper()
	body, err := mediumtest.Manifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Command(t.Context(), record.Command{Verb: medium.VerbManifest, Body: body}); err != nil {
		t.Fatal(err)
	}
}

// write makes an encrypted image of n records.
func write(t *testing.T, path string, n int, to ...age.Recipient) {
	t.Helper()
	d, err := directory.Create(path, directory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(d, to...)
	if err != nil {
		t.Fatal(err)
	}
	manifest(t, w)
	for i := range n {
		if err := w.PushData(t.Context(), mediumtest.Record(i, 1000*i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(t.Context()), w.Close()); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, m medium.Medium, id age.Identity) (n int, err error) {
	t.Helper()
	r, err := NewReader(m, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for ; ; n++ {
		rec, release, err := r.PopData(t.Context())
		if err != nil {
			return n, err
		}
		want := mediumtest.Record(n, 1000*n)
		if rec.Header != want.Header || rec.Sum != want.Sum || !bytes.Equal(rec.Payload, want.Payload) {
			t.Errorf("record %d is %s, want %s", n, rec.Header, want.Header)
		}
		release()
	}
}

func openImage(t *testing.T, path string) medium.Medium {
	t.Helper()
	d, err := directory.NewReader(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRecipients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	a, b, other := identity(t), identity(t), identity(t)
	write(t, path, 100, a.Recipient(), b.Recipient())
	for _, id := range []*age.X25519Identity{a, b} {
		if n, err := read(t, openImage(t, path), id); err != io.EOF || n != 100 {
			t.Errorf("a recipient read %d records: %v", n, err)
		}
	}
	var none *age.NoIdentityMatchError
	if n, err := read(t, openImage(t, path), other); !errors.As(err, &none) || n != 0 {
		t.Errorf("somebody else read %d records: %v", n, err)
	}
}

// TestNothingShows: no payload and no name is in the files, and the image
// verifies without a key.
func TestNothingShows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	write(t, path, 100, identity(t).Recipient())
	files, err := filepath.Glob(path + "/*")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range map[string][]byte{
			"a payload": mediumtest.Payload(3, 3000)[100:120], "a large payload": mediumtest.Payload(90, 90_000)[80_000:80_020],
			"a subsystem": []byte("memory"), "the container": []byte(`"web"`), "a CPU feature": []byte("avx2"),
		} {
			if bytes.Contains(b, secret) {
				t.Errorf("%s shows %s", name, what)
			}
		}
	}
	i, err := directory.OpenImage(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Verify(nil); err != nil {
		t.Errorf("verify without a key: %v", err)
	}
	if names := i.Manifest().Names(); !slices.Equal(names, []string{Subsystem}) {
		t.Errorf("the outer manifest lists %v", names)
	}
}

func TestPlainImageIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	d, err := directory.Create(path, directory.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	manifest(t, d)
	if err := errors.Join(d.Flush(t.Context()), d.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, openImage(t, path), identity(t)); !errors.Is(err, ErrNotEncrypted) {
		t.Errorf("a plain image: %v, want ErrNotEncrypted", err)
	}
}

// TestManipulation: somebody who can rewrite the outer image, with all its
// checksums, changes the order or the number of its records.
func TestManipulation(t *testing.T) {
	id := identity(t)
	path := filepath.Join(t.TempDir(), "image")
	write(t, path, 40, id.Recipient())
	body, list := outer(t, path)
	if len(list) != 42 { // the manifest, 40 records, the end
		t.Fatalf("%d outer records", len(list))
	}
	swap := func(a, b int) func([]*record.Record) []*record.Record {
		return func(l []*record.Record) []*record.Record {
			l[a], l[b] = l[b], l[a]
			return l
		}
	}
	for name, test := range map[string]struct {
		change func([]*record.Record) []*record.Record
		ok     bool
	}{
		"nothing":     {func(l []*record.Record) []*record.Record { return l }, true},
		"swapped":     {swap(5, 6), true}, // comes out in the right order again
		"swapped far": {swap(2, 35), false},
		"dropped":     {func(l []*record.Record) []*record.Record { return slices.Delete(l, 7, 8) }, false},
		"repeated":    {func(l []*record.Record) []*record.Record { return slices.Insert(l, 7, l[3]) }, false},
		"cut off":     {func(l []*record.Record) []*record.Record { return l[:41] }, false},
		"cut and ended": {func(l []*record.Record) []*record.Record {
			return append(l[:39], l[41])
		}, false},
		"renumbered": {func(l []*record.Record) []*record.Record {
			l[5].Entity, l[6].Entity = l[6].Entity, l[5].Entity
			return l
		}, false},
		"other kind":  {func(l []*record.Record) []*record.Record { l[9].Kind = kindVoid; return l }, false},
		"short":       {func(l []*record.Record) []*record.Record { l[9].Payload = l[9].Payload[:15]; return l }, false},
		"no manifest": {func(l []*record.Record) []*record.Record { return l[1:] }, false},
	} {
		w, r := pipe.New(1 << 30)
		if _, err := w.Command(t.Context(), record.Command{Verb: medium.VerbManifest, Body: body}); err != nil {
			t.Fatal(err)
		}
		fresh := make([]*record.Record, len(list))
		for i, rec := range list {
			c := *rec
			fresh[i] = &c
		}
		for _, rec := range test.change(fresh) {
			if err := errors.Join(rec.Seal(), w.PushData(t.Context(), rec)); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- errors.Join(w.Flush(t.Context()), w.Close()) }()
		n, err := read(t, r, id)
		if test.ok && (err != io.EOF || n != 40) || !test.ok && !errors.Is(err, ErrForged) {
			t.Errorf("%s: %d records, %v", name, n, err)
		}
		<-done
	}
}

// outer reads the records of the outer image.
func outer(t *testing.T, path string) (manifest []byte, list []*record.Record) {
	t.Helper()
	d := openImage(t, path)
	defer d.Close()
	answer, err := d.Command(t.Context(), record.Command{Verb: medium.VerbManifest})
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, release, err := d.PopData(t.Context())
		if err == io.EOF {
			return answer.Body, list
		}
		if err != nil {
			t.Fatal(err)
		}
		c := *r
		c.Payload = bytes.Clone(r.Payload)
		list = append(list, &c)
		release()
	}
}

func TestKeyMustFit(t *testing.T) {
	id := identity(t)
	for _, text := range []string{"", "age:", "age:!", "age:AAAA", "pgp:AAAA"} {
		m := image.Manifest{Encryption: text}
		if _, err := openKey(&m, []age.Identity{id}); err == nil {
			t.Errorf("%q gave a key", text)
		}
	}
}
