// SPDX-License-Identifier: Apache-2.0

// Package image is the format of an image at rest: records <-> bytes.
//
// Three kinds of file make an image: one manifest, one state file that holds
// every record's header in stream order and the small payloads, and any number
// of pages files (lanes) with the large payloads, so that several workers can
// write and read at the same time. docs/image-format.md describes every byte
// and the reasons; the constants here carry the same numbers.
//
// An image is untrusted input. Nothing is allocated on the word of the input:
// a record's header has a checksum of its own and is checked against the
// limits before its payload is touched. Errors name file, record and offset.
package image

// The limits of the format. A decoder refuses more before it allocates.
const (
	// FileHeaderSize is the length of the header that starts every file.
	FileHeaderSize = 16
	// RecordHeaderSize is the length of a record's header and of the end marker.
	RecordHeaderSize = 80
	// PageAlign is the alignment, in bytes, of payloads in a pages file.
	PageAlign = 4096
	// BigAlign is the alignment, in bytes, of payloads whose length is a multiple
	// of it: the size of a huge page, which a file system that has them (tmpfs
	// with huge=, for example) fills with one write, without clearing it first.
	BigAlign = 2 << 20
	// MaxLanes is the number of pages files that an image may have.
	MaxLanes = 64
	// MaxManifest bounds the manifest's body, in bytes.
	MaxManifest = 256 << 10
)
