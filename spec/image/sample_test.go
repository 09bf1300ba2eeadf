// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// sampleRecords are those of the golden images and of the example in
// docs/image-format.md.
func sampleRecords(t testing.TB) []*record.Record {
	t.Helper()
	list := []*record.Record{
		{Header: record.Header{Subsystem: "task", Process: 1, Entity: 1, Kind: 1}, Payload: []byte("redis")},
		{Header: record.Header{Subsystem: "memory", Process: 1, Entity: 0x7f0000000000, Kind: 2}, Payload: bytes.Repeat([]byte{0xa5, 0x5a}, 35)},
		{Header: record.Header{Subsystem: "cpu", Process: 1, Entity: 1, Kind: 3}},
	}
	for _, r := range list {
		if err := r.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// sampleState is a state file with every payload inside, and its second
// record's in lane 1 if lanes is set: then pages is that lane's file.
func sampleState(t testing.TB, lanes bool) (state, pages []byte) {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range sampleRecords(t) {
		if lanes && i == 1 {
			err = w.Refer(r, Place{Lane: 1, Offset: PageAlign})
			head := FileHeader{Major: Major, Minor: Minor, Kind: KindPages, Lane: 1}.Append(nil)
			pages = make([]byte, Align(PageAlign+int64(len(r.Payload))))
			copy(pages, head)
			copy(pages[PageAlign:], r.Payload)
		} else {
			err = w.Append(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(sampleRecords(t)[0]); err == nil {
		t.Fatal("a record after the end marker was written")
	}
	return b.Bytes(), pages
}

func sampleManifest() *Manifest {
	return &Manifest{
		Tool: "0.1.0", Created: "2026-01-02T03:04:05Z", Architecture: "amd64", Kernel: "6.18.44", Container: "web", PageSize: 4096,
		CPUFeatures: []string{"avx2", "sse4_2"},
		Subsystems:  []Subsystem{{"task", 1}, {"memory", 1}, {"cpu", 2}},
		Files:       []File{{StateName, 16 + 4*80 + 5, 2, 5}, {PagesName(1), 8192, 1, 70}},
	}
}

var elsewhere [record.MaxPayload]byte

// decode reads a whole stream with the payloads that lie in it.
func decode(b []byte, o Options) (list []*record.Record, places []Place, err error) {
	d, err := NewReader(bytes.NewReader(b), o)
	if err != nil {
		return nil, nil, err
	}
	err = Walk(d, func(e Entry) error {
		payload := elsewhere[:e.Length] // its length is all that encode needs
		if e.Place.Lane == 0 {
			payload = make([]byte, e.Length)
			if err := d.Payload(payload); err != nil {
				return err
			}
		}
		list, places = append(list, e.Record(payload)), append(places, e.Place)
		return nil
	})
	return list, places, err
}

// encode is decode's reverse.
func encode(list []*record.Record, places []Place) ([]byte, error) {
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		return nil, err
	}
	for i, r := range list {
		if places[i].Lane == 0 {
			err = w.Append(r)
		} else {
			err = w.Refer(r, places[i])
		}
		if err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return b.Bytes(), err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
