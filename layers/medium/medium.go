// SPDX-License-Identifier: Apache-2.0

// Package medium is the transfer medium layer: it knows the media by their URL
// schemes and opens one per event and direction. A medium moves records
// without knowing what they hold.
//
// The media are sub-packages, one each; so are the wrappers (meter, limit,
// fault, encrypt), which take a Medium and are one. All of them pass the one
// suite in mediumtest, which is the executable form of the contract below.
package medium

import (
	"context"
	"errors"
	"fmt"

	"github.com/io-mig/mig/spec/record"
)

// Medium moves records, in one direction. It is what control consumes (the
// paper's Table 2), declared again so that media need not import control.
//
// Order: a push that begins after another has returned is delivered after it.
// Pushes that overlap are delivered in some order. Several PopData calls at
// once each get a record of their own; records are handed out in stream order,
// but the calls may return in any.
//
// The verb "manifest" (to "") is common to all: on the writing side it takes
// image.Manifest's JSON and must come before the first Flush; on the reading
// side it returns it.
type Medium interface {
	// PushData takes a sealed record. It may buffer; the payload is the
	// caller's again on return. Safe for several callers at once. After an
	// error other than the context's the medium is broken for good.
	PushData(ctx context.Context, r *record.Record) error
	// PopData returns the next record, io.EOF after the last of a complete
	// stream, and an error that names the place where the stream is damaged.
	// It does not verify the record's checksum: who imports does. The payload
	// stays valid until release is called, exactly once. Safe for several
	// callers at once.
	PopData(ctx context.Context) (r *record.Record, release func(), err error)
	// Command carries control; a verb that the medium does not know is an
	// error that wraps errors.ErrUnsupported.
	Command(ctx context.Context, c record.Command) (record.Command, error)
	// Flush returns when everything pushed is safe at the other end or on
	// disk. It may come several times, with pushes in between.
	Flush(ctx context.Context) error
	// Close ends the medium's use. Without a Flush after the last push, a
	// writer leaves nothing behind that could be taken for a whole image. No
	// other call may be under way or follow.
	Close() error
}

// VerbManifest is the verb of the command that carries the manifest.
const VerbManifest = "manifest"

// Errors that callers tell apart.
var (
	// ErrDirection: push on a reader, or pop on a writer.
	ErrDirection = errors.New("wrong direction")
	// ErrIncomplete: the writer went away before it had flushed everything.
	ErrIncomplete = errors.New("stream is incomplete")
	// ErrClosed: the medium was closed.
	ErrClosed = errors.New("medium is closed")
	// ErrNoManifest: Flush, or a reader's "manifest", without one.
	ErrNoManifest = errors.New("no manifest")
	// ErrInUse: a medium of this scheme is open.
	ErrInUse = errors.New("medium is in use")
	// ErrUnknown: no medium of this scheme is inserted.
	ErrUnknown = errors.New("unknown medium")
)

// Direction of an instance.
type Direction int

// The directions: Write for the side that exports, Read for the other.
const (
	Write Direction = iota + 1
	Read
)

func (d Direction) String() string {
	switch d {
	case Write:
		return "write"
	case Read:
		return "read"
	}
	return fmt.Sprintf("direction %d", int(d))
}

// Unsupported is the answer to a verb that a medium does not know.
func Unsupported(name string, c record.Command) error {
	return fmt.Errorf("%s: command %q to %q: %w", name, c.Verb, c.To, errors.ErrUnsupported)
}
