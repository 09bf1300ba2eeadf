// SPDX-License-Identifier: Apache-2.0

// Package record defines the unit in which a container's state travels.
//
// A record is one piece of one kind of kernel state, in the format of the
// subsystem that exported it. Data flow one way: kernel state -> subsystem ->
// record -> medium -> wire or file. A medium moves records without knowing what
// they hold; a subsystem fills them without knowing where they go. The package
// imports nothing of mig but its own checksum, so that every layer can share it.
package record

import (
	"encoding/binary"
	"fmt"

	"github.com/io-mig/mig/spec/record/internal/castagnoli"
)

// MaxPayload bounds the payload of one record, in bytes. A larger entity is
// split by its subsystem. Decoders refuse more before they allocate anything.
const MaxPayload = 4 << 20

// MaxSubsystem bounds the length of a subsystem's name, in bytes.
const MaxSubsystem = 32

// ProcessID names a process inside one image or event: 1, 2, ... in the order
// in which a restore creates them, so that a parent precedes its children. It
// is not a pid. Shared marks state that belongs to no single process.
type ProcessID uint32

// Shared is the ProcessID of state that belongs to the container as a whole or
// to several of its processes.
const Shared ProcessID = 0

// Header says what a record is. Two records with equal headers are two
// versions of one thing: the later one in stream order supersedes the earlier.
type Header struct {
	// Subsystem is the name of the exporter, for example "memory".
	Subsystem string
	// Process owns the state, or is Shared.
	Process ProcessID
	// Entity names the thing within subsystem and process: a page's address, a
	// thread's id in its pid namespace, the id of an open file description.
	Entity uint64
	// Kind tells the subsystem which of its formats the payload has. Kinds are
	// numbered from 1 by each subsystem and are never reused.
	Kind uint32
}

// String names the record in errors and listings, "memory/1/kind 2/0x7f00000000".
func (h Header) String() string {
	return fmt.Sprintf("%s/process %d/kind %d/entity %#x", h.Subsystem, h.Process, h.Kind, h.Entity)
}

// Record is a header with its payload: a protobuf message or raw pages, as the
// subsystem and the kind say.
//
// Whoever holds a record may read the payload until it hands the record back
// (see Sink.Push and the medium's PopData); nobody modifies it after Seal.
type Record struct {
	Header
	// Sum is the CRC-32C of header and payload, set by Seal. It is computed
	// where the state is exported and checked where it is imported, so it also
	// covers the memory of everything in between.
	Sum     uint32
	Payload []byte
	// From is where a medium found the record, for errors; zero where a medium
	// has no places. It is no part of the record.
	From Place

	// computed is the checksum that a Summer found, which summed says.
	computed uint32
	summed   bool
}

// Place is where a record lies in an image.
type Place struct {
	// File by its name in the image, Number of the record in the stream, from 0,
	// Offset in the file in bytes.
	File           string
	Number, Offset int64
}

// Summer computes a record's checksum while its payload is written, piece by
// piece: a piece that was just written is still in the processor's cache, a
// payload of megabytes is not any more.
type Summer struct{ sum uint32 }

// Summer begins the checksum of a record with a payload of so many bytes.
func (h *Header) Summer(length int) Summer {
	var b [MaxSubsystem + 24]byte
	n := copy(b[:MaxSubsystem], h.Subsystem)
	binary.LittleEndian.PutUint32(b[n:], uint32(h.Process))
	binary.LittleEndian.PutUint64(b[n+4:], h.Entity)
	binary.LittleEndian.PutUint32(b[n+12:], h.Kind)
	binary.LittleEndian.PutUint64(b[n+16:], uint64(length))
	return Summer{castagnoli.Checksum(b[:n+24])}
}

// Add takes the payload's next piece.
func (s *Summer) Add(piece []byte) { s.sum = castagnoli.Update(s.sum, piece) }

// Summed tells the record the checksum of its header and payload as they were
// written, for the next Seal and Verify.
func (r *Record) Summed(s Summer) { r.computed, r.summed = s.sum, true }

// sum is the CRC-32C over the header's canonical bytes and the payload.
func (r *Record) sum() uint32 {
	if r.summed {
		return r.computed
	}
	s := r.Summer(len(r.Payload))
	s.Add(r.Payload)
	return s.sum
}

// Seal sets Sum from header and payload. It fails where the record breaks a
// limit, which is a defect of the subsystem that made it.
func (r *Record) Seal() error {
	if err := r.Valid(); err != nil {
		return err
	}
	r.Sum = r.sum()
	return nil
}

// Verify reports whether header and payload still match Sum.
func (r *Record) Verify() error {
	if err := r.Valid(); err != nil {
		return err
	}
	if got := r.sum(); got != r.Sum {
		return &ChecksumError{Header: r.Header, From: r.From, Want: r.Sum, Got: got}
	}
	return nil
}

// Valid checks the limits of names and sizes.
func (r *Record) Valid() error {
	switch {
	case r.Subsystem == "" || len(r.Subsystem) > MaxSubsystem:
		return fmt.Errorf("record %s: a subsystem's name has 1 to %d bytes", r.Header, MaxSubsystem)
	case r.Kind == 0:
		return fmt.Errorf("record %s: kind 0 is reserved", r.Header)
	case len(r.Payload) > MaxPayload:
		return fmt.Errorf("record %s: payload of %d bytes exceeds the limit of %d", r.Header, len(r.Payload), MaxPayload)
	}
	return nil
}

// ChecksumError is a record whose bytes are not those that were exported.
type ChecksumError struct {
	Header    Header
	From      Place
	Want, Got uint32
}

func (e *ChecksumError) Error() string {
	text := fmt.Sprintf("record %s is damaged: its checksum is %08x, its bytes give %08x", e.Header, e.Want, e.Got)
	if e.From.File != "" {
		text = fmt.Sprintf("%s: record %d: offset %d: %s", e.From.File, e.From.Number, e.From.Offset, text)
	}
	return text
}
