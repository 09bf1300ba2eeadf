// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Limits of the manifest's lists and strings.
const (
	maxSubsystems  = 64
	maxCPUFeatures = 1024
	maxString      = 256
	maxEncryption  = 64 << 10
)

// Manifest says what an image is and what is needed to use it. On disk it is
// the manifest file: file header, body length (4 bytes, little-endian), CRC-32C
// of the body (4 bytes), body. The body is JSON in one canonical form: every
// field, in this order, no white space. Strings are printable ASCII without
// '"', '\', '<', '>' and '&', so that nothing is ever escaped.
type Manifest struct {
	// Tool is the version of the program that wrote the image.
	Tool string `json:"tool"`
	// Created is the time, RFC 3339 in UTC to the second.
	Created string `json:"created"`
	// Architecture as Go names it: "amd64".
	Architecture string `json:"architecture"`
	// Kernel is the release of the source's kernel (uname -r).
	Kernel string `json:"kernel"`
	// Container is the source container's id.
	Container string `json:"container"`
	// PageSize of the source in bytes.
	PageSize uint32 `json:"page_size"`
	// CPUFeatures that the tasks may have seen, as /proc/cpuinfo names them.
	CPUFeatures []string `json:"cpu_features"`
	// Subsystems whose records are in the stream. A reader that does not know
	// one of them, or not its version, refuses the image by that name.
	Subsystems []Subsystem `json:"subsystems"`
	// Encryption is how to get at the key of an encrypted image; empty: plain.
	Encryption string `json:"encryption"`
	// Files beside the manifest; the medium that writes the files fills it in.
	Files []File `json:"files"`
}

// Subsystem is the name and the format version of one exporter.
type Subsystem struct {
	Name    string `json:"name"`
	Version uint32 `json:"version"`
}

// File is one of an image's other files.
type File struct {
	Name string `json:"name"`
	// Size in bytes.
	Size int64 `json:"size"`
	// Records whose payload lies in this file, and the sum of their lengths.
	Records uint64 `json:"records"`
	Bytes   uint64 `json:"bytes"`
}

// Time is Created as a time.
func (m *Manifest) Time() (time.Time, error) { return time.Parse(time.RFC3339, m.Created) }

// Names are the names of the subsystems.
func (m *Manifest) Names() []string {
	names := make([]string, len(m.Subsystems))
	for i, s := range m.Subsystems {
		names[i] = s.Name
	}
	return names
}

// Marshal returns the canonical JSON body.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Valid(); err != nil {
		return nil, err
	}
	c := *m
	c.CPUFeatures = orEmpty(c.CPUFeatures)
	c.Subsystems = orEmpty(c.Subsystems)
	c.Files = orEmpty(c.Files)
	b, err := json.Marshal(&c)
	if err == nil && len(b) > MaxManifest {
		err = fmt.Errorf("%w: a manifest of %d bytes, the limit is %d", ErrFormat, len(b), MaxManifest)
	}
	return b, err
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// UnmarshalManifest reads a canonical JSON body.
func UnmarshalManifest(b []byte) (*Manifest, error) { return unmarshal(b, Minor) }

// unmarshal: up to our own minor version the body must be what Marshal would
// write; a newer one may hold more fields, which are ignored.
func unmarshal(b []byte, minor uint16) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes, the limit is %d", ErrFormat, len(b), MaxManifest)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	if err := m.Valid(); err != nil {
		return nil, err
	}
	if minor <= Minor {
		if canon, err := m.Marshal(); err != nil || !bytes.Equal(canon, b) {
			return nil, fmt.Errorf("%w: manifest: not in the canonical form (docs/image-format.md)", ErrFormat)
		}
	}
	return m, nil
}

// Encode returns the manifest file.
func (m *Manifest) Encode() ([]byte, error) {
	body, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	b := FileHeader{Major: Major, Minor: Minor, Kind: KindManifest}.Append(nil)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return append(b, body...), nil
}

// DecodeManifest reads a manifest file to its end; name stands for it in errors.
func DecodeManifest(r io.Reader, name string) (*Manifest, error) {
	fail := func(at int64, err error) (*Manifest, error) {
		return nil, &Error{File: name, Record: -1, Offset: at, Err: err}
	}
	var head [FileHeaderSize + 8]byte
	if n, err := io.ReadFull(r, head[:FileHeaderSize]); err != nil {
		return fail(0, short(err, n, FileHeaderSize, "file header"))
	}
	h, err := DecodeFileHeader(head[:])
	if err == nil {
		err = h.Expect(KindManifest, 0)
	}
	if err != nil {
		return fail(0, err)
	}
	if n, err := io.ReadFull(r, head[FileHeaderSize:]); err != nil {
		return fail(FileHeaderSize, short(err, n, 8, "length and checksum"))
	}
	size := binary.LittleEndian.Uint32(head[FileHeaderSize:])
	if size > MaxManifest {
		return fail(FileHeaderSize, fmt.Errorf("%w: a manifest of %d bytes, the limit is %d", ErrFormat, size, MaxManifest))
	}
	body := make([]byte, size)
	if n, err := io.ReadFull(r, body); err != nil && size > 0 {
		return fail(int64(len(head)), short(err, n, int(size), "manifest"))
	}
	if got, want := crc32.Checksum(body, castagnoli), binary.LittleEndian.Uint32(head[FileHeaderSize+4:]); got != want {
		return fail(int64(len(head)), fmt.Errorf("manifest: %w: stored %08x, computed %08x", ErrChecksum, want, got))
	}
	if n, err := r.Read(head[:1]); n != 0 || err != io.EOF {
		return fail(int64(len(head))+int64(size), fmt.Errorf("%w: bytes after the manifest", ErrFormat))
	}
	m, err := unmarshal(body, h.Minor)
	if err != nil {
		return fail(int64(len(head)), err)
	}
	return m, nil
}
