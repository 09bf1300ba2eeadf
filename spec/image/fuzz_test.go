// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"testing"
)

// Each target: no panic, bounded memory, and what decodes encodes to the same
// bytes, so there is one encoding of each thing.

func FuzzFileHeader(f *testing.F) {
	for _, h := range []FileHeader{{1, 0, KindState, 0}, {1, 3, KindManifest, 0}, {1, 0, KindPages, 64}, {2, 0, KindState, 0}} {
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := DecodeFileHeader(b)
		if err == nil && !bytes.Equal(h.Append(nil), b[:FileHeaderSize]) {
			t.Errorf("% x decodes to %+v, which encodes to % x", b[:FileHeaderSize], h, h.Append(nil))
		}
	})
}

func FuzzRecordHeader(f *testing.F) {
	for _, r := range sampleRecords(f) {
		e := Entry{Header: r.Header, Sum: r.Sum, Length: len(r.Payload)}
		f.Add(e.Append(nil)[:76])
		e.Length, e.Place = 70000, Place{Lane: 3, Offset: 8192}
		f.Add(e.Append(nil)[:76])
	}
	f.Add(End{1, 2, 3}.Append(nil)[:76])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 76 {
			return
		}
		b = resum(append(b[:76:76], 0, 0, 0, 0)) // a fuzzer does not guess checksums
		e, end, err := DecodeBlock(b)
		if err != nil {
			return
		}
		again := e.Append(nil)
		if end != nil {
			again = end.Append(nil)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("% x encodes to % x", b, again)
		}
		if end == nil && e.Valid() != nil {
			t.Errorf("decoded but not valid: %v", e.Valid())
		}
	})
}

func FuzzManifest(f *testing.F) {
	for _, m := range []*Manifest{sampleManifest(), {Architecture: "x", Created: "2026-01-02T03:04:05Z", PageSize: 1}} {
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := UnmarshalManifest(b)
		if err != nil {
			return
		}
		if again, err := m.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q encodes to %q, %v", b, again, err)
		}
		file, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeManifest(bytes.NewReader(file), "m"); err != nil {
			t.Error(err)
		}
	})
}

// FuzzStream: the input is a stream without its checksums, which are put in
// where a block is expected.
func FuzzStream(f *testing.F) {
	inline, _ := sampleState(f, false)
	lanes, _ := sampleState(f, true)
	f.Add(inline)
	f.Add(lanes)
	f.Fuzz(func(t *testing.T, b []byte) {
		b, sizes := sumBlocks(bytes.Clone(b))
		list, places, err := decode(b, Options{Lanes: sizes})
		if len(list) > len(b)/RecordHeaderSize {
			t.Fatalf("%d records from %d bytes", len(list), len(b))
		}
		if err != nil {
			return
		}
		// A newer minor version is read, and written as this one.
		copy(b, FileHeader{Major: Major, Minor: Minor, Kind: KindState}.Append(nil))
		again, err := encode(list, places)
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("% x encodes to % x, %v", b, again, err)
		}
	})
}

// sumBlocks walks the blocks as a reader would and corrects the checksums; it
// returns the sizes of the lanes that would fit, too.
func sumBlocks(b []byte) ([]byte, []int64) {
	var end End
	var l lanes
	var used int
	if len(b) >= FileHeaderSize {
		resum(b[:FileHeaderSize])
	}
	for at := FileHeaderSize; at+RecordHeaderSize <= len(b); {
		block := b[at : at+RecordHeaderSize]
		if string(block[:4]) == markEnd {
			copy(block, end.Append(nil))
			break
		}
		e, _, err := DecodeBlock(resum(block))
		if err != nil || l.take(&e) != nil {
			break
		}
		end.add(block, e.Length)
		used = max(used, e.Place.Lane)
		at += RecordHeaderSize
		if e.Place.Lane == 0 {
			at += e.Length
		}
	}
	var sizes []int64
	for lane := 1; lane <= used; lane++ {
		sizes = append(sizes, l.end(lane))
	}
	return b, sizes
}
