// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Magic starts every file of an image. Its last byte is no text, so that a
// text tool stops there.
const Magic = "MIG\x1a"

// The format's version. A reader takes its own major version with any minor
// one: what a newer minor version adds may be ignored.
const (
	Major = 1
	Minor = 0
)

// FileKind says which of an image's files this is.
type FileKind uint16

// The kinds of file.
const (
	KindManifest FileKind = 1
	KindState    FileKind = 2
	KindPages    FileKind = 3
)

func (k FileKind) String() string {
	switch k {
	case KindManifest:
		return "manifest"
	case KindState:
		return "state"
	case KindPages:
		return "pages"
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

// FileHeader is the first 16 bytes of every file, all integers little-endian:
//
//	 0  4  Magic
//	 4  2  major version
//	 6  2  minor version
//	 8  2  kind
//	10  2  lane: the number of a pages file, from 1; 0 in the others
//	12  4  CRC-32C of bytes 0 to 11
type FileHeader struct {
	Major, Minor uint16
	Kind         FileKind
	Lane         uint16
}

// Errors that callers tell apart.
var (
	// ErrNotImage: the file does not start as one of an image does.
	ErrNotImage = errors.New("not a file of a mig image")
	// ErrChecksum: the bytes are not those that were written.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrTruncated: the file ends before its end marker.
	ErrTruncated = errors.New("truncated")
	// ErrFormat: the bytes are whole but break the format's rules.
	ErrFormat = errors.New("malformed")
)

// VersionError is a file of a major version that this program cannot read.
type VersionError struct{ Major, Minor uint16 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("image format %d.%d, this mig reads %d.x: use the mig release that wrote the image", e.Major, e.Minor, Major)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Append appends the header's 16 bytes to b.
func (h FileHeader) Append(b []byte) []byte {
	start := len(b)
	b = append(b, Magic...)
	b = binary.LittleEndian.AppendUint16(b, h.Major)
	b = binary.LittleEndian.AppendUint16(b, h.Minor)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Kind))
	b = binary.LittleEndian.AppendUint16(b, h.Lane)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// DecodeFileHeader reads the header at the start of b. The version is judged
// before anything that a later major version may have changed.
func DecodeFileHeader(b []byte) (FileHeader, error) {
	if len(b) < FileHeaderSize {
		return FileHeader{}, fmt.Errorf("%w: %d bytes, a file header has %d", ErrTruncated, len(b), FileHeaderSize)
	}
	if string(b[:4]) != Magic {
		return FileHeader{}, fmt.Errorf("%w: it starts with % x", ErrNotImage, b[:4])
	}
	if got, want := crc32.Checksum(b[:12], castagnoli), binary.LittleEndian.Uint32(b[12:]); got != want {
		return FileHeader{}, fmt.Errorf("file header: %w: stored %08x, computed %08x", ErrChecksum, want, got)
	}
	h := FileHeader{
		Major: binary.LittleEndian.Uint16(b[4:]),
		Minor: binary.LittleEndian.Uint16(b[6:]),
		Kind:  FileKind(binary.LittleEndian.Uint16(b[8:])),
		Lane:  binary.LittleEndian.Uint16(b[10:]),
	}
	if h.Major != Major {
		return h, &VersionError{Major: h.Major, Minor: h.Minor}
	}
	return h, h.valid()
}

// Expect reports whether the header is that of the kind and lane wanted.
func (h FileHeader) Expect(kind FileKind, lane int) error {
	if h.Kind != kind || int(h.Lane) != lane {
		return fmt.Errorf("file header: %w: a %s file, lane %d, where %s, lane %d belongs", ErrFormat, h.Kind, h.Lane, kind, lane)
	}
	return nil
}

func (h FileHeader) valid() error {
	switch {
	case h.Kind < KindManifest || h.Kind > KindPages:
		return fmt.Errorf("file header: %w: unknown file %s", ErrFormat, h.Kind)
	case (h.Kind == KindPages) != (h.Lane != 0) || h.Lane > MaxLanes:
		return fmt.Errorf("file header: %w: lane %d in a %s file", ErrFormat, h.Lane, h.Kind)
	}
	return nil
}

// Error is a defect of an image at one place.
type Error struct {
	// File is the name of the file within the image.
	File string
	// Record is the number of the record, from 0, or -1 outside of any.
	Record int64
	// Offset is the position in File of the header or field that is wrong.
	Offset int64
	Err    error
}

func (e *Error) Error() string {
	if e.Record < 0 {
		return fmt.Sprintf("%s: offset %d: %v", e.File, e.Offset, e.Err)
	}
	return fmt.Sprintf("%s: record %d at offset %d: %v", e.File, e.Record, e.Offset, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
