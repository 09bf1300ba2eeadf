// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/io-mig/mig/spec/record"
)

// resum puts the right checksum behind a changed block.
func resum(b []byte) []byte {
	end := len(b) - 4
	binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], castagnoli))
	return b
}

func TestVersionIsJudgedFirst(t *testing.T) {
	state, _ := sampleState(t, false)
	head := resum(append([]byte(Magic), 2, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))
	copy(state, head)
	_, err := NewReader(bytes.NewReader(state), Options{})
	var version *VersionError
	if !errors.As(err, &version) || version.Major != 2 || version.Minor != 7 {
		t.Errorf("a file of version 2.7 with an unknown kind: %v, want a VersionError", err)
	}
	// A newer minor version is read.
	copy(state, resum(append([]byte(Magic), 1, 0, 9, 0, 2, 0, 0, 0, 0, 0, 0, 0)))
	if _, _, err := decode(state, Options{}); err != nil {
		t.Errorf("version 1.9: %v", err)
	}
}

// TestEveryTruncation: every prefix is refused with ErrTruncated.
func TestEveryTruncation(t *testing.T) {
	state, _ := sampleState(t, false)
	for n := range len(state) {
		_, _, err := decode(state[:n], Options{})
		var place *Error
		if !errors.Is(err, ErrTruncated) || !errors.As(err, &place) || isEOF(err) {
			t.Errorf("%d of %d bytes: %v, want an *Error with ErrTruncated and without io.EOF", n, len(state), err)
		}
	}
}

// TestEveryBit: every flipped bit is noticed, by the format or by the record.
func TestEveryBit(t *testing.T) {
	state, _ := sampleState(t, false)
	for at := range state {
		for bit := range 8 {
			b := bytes.Clone(state)
			b[at] ^= 1 << bit
			list, _, err := decode(b, Options{})
			for _, r := range list {
				err = errors.Join(err, r.Verify())
			}
			if err == nil {
				t.Errorf("byte %d, bit %d: not noticed", at, bit)
			}
		}
	}
}

// TestHostileBlocks: well-summed headers that break a rule.
func TestHostileBlocks(t *testing.T) {
	good := Entry{Header: sampleRecords(t)[0].Header, Length: 5}
	for name, change := range map[string]func(b []byte){
		"kind 0":              func(b []byte) { clear(b[4:8]) },
		"huge length":         func(b []byte) { binary.LittleEndian.PutUint32(b[12:], 1<<31) },
		"length over limit":   func(b []byte) { binary.LittleEndian.PutUint32(b[12:], record.MaxPayload+1) },
		"lane 65":             func(b []byte) { b[28] = 65; b[33] = 16 },
		"lane without offset": func(b []byte) { b[28] = 1 },
		"offset without lane": func(b []byte) { b[33] = 16 },
		"odd offset":          func(b []byte) { b[28] = 1; b[32] = 1; b[33] = 16 },
		"offset overflow":     func(b []byte) { b[28] = 1; b[39] = 0x80 },
		"empty name":          func(b []byte) { clear(b[40:72]) },
		"name with a hole":    func(b []byte) { b[41] = 0 },
		"name with a slash":   func(b []byte) { b[41] = '/' },
		"name with a capital": func(b []byte) { b[41] = 'A' },
		"reserved":            func(b []byte) { b[72] = 1 },
		"unknown mark":        func(b []byte) { b[0] = 'X' },
		"dirty end marker":    func(b []byte) { copy(b, "MEND") },
	} {
		b := good.Append(nil)
		change(b)
		if _, _, err := DecodeBlock(resum(b)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	b := good.Append(nil)
	b[20] ^= 1
	if _, _, err := DecodeBlock(b); !errors.Is(err, ErrChecksum) {
		t.Errorf("flipped: %v, want ErrChecksum", err)
	}
}

// TestHostileStreams: blocks that are valid alone but not together.
func TestHostileStreams(t *testing.T) {
	big := Entry{Header: record.Header{Subsystem: "memory", Kind: 1}, Length: 1 << 20}
	lane := big
	lane.Place = Place{Lane: 1, Offset: PageAlign}
	gap := lane
	gap.Place.Offset = 2*PageAlign + 1<<20
	huge := Entry{Header: big.Header, Length: BigAlign, Place: Place{Lane: 1, Offset: PageAlign}}
	end := End{}.Append(nil)
	for _, test := range []struct {
		name   string
		blocks []byte
		o      Options
		want   error
	}{
		{"payload larger than the file", big.Append(nil), Options{Size: 1000}, ErrTruncated},
		{"no such lane", lane.Append(nil), Options{}, ErrFormat},
		{"past its lane", lane.Append(nil), Options{Lanes: []int64{PageAlign + 1<<20 - 1}}, ErrTruncated},
		{"overlapping", append(lane.Append(nil), lane.Append(nil)...), Options{Lanes: []int64{1 << 30}}, ErrFormat},
		{"gap in a lane", append(lane.Append(nil), gap.Append(nil)...), Options{Lanes: []int64{1 << 30}}, ErrFormat},
		{"huge page across two", huge.Append(nil), Options{Lanes: []int64{1 << 30}}, ErrFormat},
		{"unlisted subsystem", lane.Append(nil), Options{Lanes: []int64{1 << 30}, Subsystems: []string{"cpu"}}, ErrFormat},
		{"wrong count", append(lane.Append(nil), end...), Options{Lanes: []int64{1 << 30}}, ErrFormat},
		{"unused bytes in a lane", end, Options{Lanes: []int64{1 << 30}}, ErrFormat},
		{"bytes after the end", append(end[:80:80], 0), Options{Size: FileHeaderSize + 81}, ErrFormat},
	} {
		head := FileHeader{Major: Major, Minor: Minor, Kind: KindState}.Append(nil)
		_, _, err := decode(append(head, test.blocks...), test.o)
		var place *Error
		if !errors.Is(err, test.want) || !errors.As(err, &place) || place.Offset < FileHeaderSize {
			t.Errorf("%s: %v, want %v with its place", test.name, err, test.want)
		}
	}
}

// TestStart: payloads follow each other, and those that fill huge pages begin
// where one begins.
func TestStart(t *testing.T) {
	for _, test := range []struct {
		end    int64
		length int
		want   int64
	}{
		{0, 5, PageAlign},
		{PageAlign, 5, PageAlign},
		{PageAlign + 5, 5, 2 * PageAlign},
		{PageAlign, BigAlign, BigAlign},
		{BigAlign, 2 * BigAlign, BigAlign},
		{BigAlign + 1, BigAlign, 2 * BigAlign},
		{PageAlign, BigAlign + 96, PageAlign},
		{2 * BigAlign, 0, 2 * BigAlign},
	} {
		if got := Start(test.end, test.length); got != test.want {
			t.Errorf("%d bytes behind %d start at %d, want %d", test.length, test.end, got, test.want)
		}
	}
}

// TestErrorsNameThePlace: file, record and offset.
func TestErrorsNameThePlace(t *testing.T) {
	state, _ := sampleState(t, false)
	second := FileHeaderSize + RecordHeaderSize + 5
	state[second+20] ^= 1
	_, _, err := decode(state, Options{Name: "mig.state"})
	if err == nil || !strings.HasPrefix(err.Error(), "mig.state: record 1 at offset 101: ") {
		t.Errorf("%v, want it to start with file, record and offset", err)
	}
}

// TestHostileManifestAllocatesNothing: a length is checked before it is used.
func TestHostileManifestAllocatesNothing(t *testing.T) {
	b := FileHeader{Major: Major, Kind: KindManifest}.Append(nil)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodeManifest(bytes.NewReader(b), "m")
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrFormat) || after.TotalAlloc-before.TotalAlloc > 1<<20 {
		t.Errorf("%v after %d bytes were allocated", err, after.TotalAlloc-before.TotalAlloc)
	}
}

func TestManifestRefuses(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"time":                func(m *Manifest) { m.Created = "2026-01-02 03:04:05" },
		"zone":                func(m *Manifest) { m.Created = "2026-01-02T03:04:05+01:00" },
		"page size":           func(m *Manifest) { m.PageSize = 4095 },
		"quote":               func(m *Manifest) { m.Container = `a"b` },
		"control character":   func(m *Manifest) { m.Kernel = "\x1b[2J" },
		"long string":         func(m *Manifest) { m.Tool = strings.Repeat("x", 257) },
		"no architecture":     func(m *Manifest) { m.Architecture = "" },
		"subsystem twice":     func(m *Manifest) { m.Subsystems = append(m.Subsystems, m.Subsystems[0]) },
		"subsystem version 0": func(m *Manifest) { m.Subsystems[0].Version = 0 },
		"many subsystems":     func(m *Manifest) { m.Subsystems = make([]Subsystem, 65) },
		"path":                func(m *Manifest) { m.Files[1].Name = "../mig.pages-1" },
		"wrong order":         func(m *Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] },
		"negative size":       func(m *Manifest) { m.Files[0].Size = -1 },
		"more than fits":      func(m *Manifest) { m.Files[0].Bytes = 1 << 40 },
		"CPU feature":         func(m *Manifest) { m.CPUFeatures[0] = "" },
	} {
		m := sampleManifest()
		change(m)
		if _, err := m.Encode(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	good, err := sampleManifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{
		"white space":   strings.Replace(string(good), ":", ": ", 1),
		"unknown field": strings.Replace(string(good), "{", `{"extra":1,`, 1),
		"field twice":   strings.Replace(string(good), "{", `{"tool":"x",`, 1),
		"other case":    strings.Replace(string(good), `"tool"`, `"Tool"`, 1),
		"missing field": strings.Replace(string(good), `"encryption":"",`, "", 1),
		"escape":        strings.Replace(string(good), "web", `\u0077eb`, 1),
	} {
		if _, err := UnmarshalManifest([]byte(body)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
	newer := strings.Replace(string(good), "{", `{"extra":1,`, 1)
	if m, err := unmarshal([]byte(newer), Minor+1); err != nil || m.Container != "web" {
		t.Errorf("a field of a newer minor version: %v", err)
	}
}

func TestPayloadMisuse(t *testing.T) {
	state, _ := sampleState(t, false)
	d, err := NewReader(bytes.NewReader(state), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(); err != nil {
		t.Fatal(err)
	}
	if err := d.Payload(make([]byte, 6)); err == nil {
		t.Error("a buffer of the wrong size was filled")
	}
	if err := d.Payload(make([]byte, 5)); err != nil {
		t.Errorf("the right size afterwards: %v", err)
	}
	if err := d.Payload(make([]byte, 5)); err == nil {
		t.Error("the payload was read twice")
	}
	for err = nil; err == nil; {
		_, err = d.Next() // skips payloads
	}
	if err != io.EOF || d.End().Records != 3 || d.End().Bytes != 75 {
		t.Errorf("%v after %+v", err, d.End())
	}
}
