// SPDX-License-Identifier: Apache-2.0

// Package agent is what an application in a container and its shim say to each
// other: lines of text over a unix socket, see docs/agent.md.
//
// A line is a verb and fields, separated by single spaces and ended by a line
// feed. A field is a key, "=", and a value that is escaped as a query component
// of RFC 3986 is (spaces may be "+"). Unknown fields are ignored, so that fields
// can be added without a new version.
package agent

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Version of the protocol.
const Version = "1"

// Dir is where the socket's directory is mounted in the container, Socket the
// socket's name there.
const (
	Dir    = "/run/mig"
	Socket = "agent.sock"
	Path   = Dir + "/" + Socket
)

// MaxLine bounds a line with its line feed, in bytes.
const MaxLine = 4096

// Verbs of an application.
const (
	// Hello opens a connection: version=, and event= of the Prepare that the
	// application has answered and whose outcome it asks for.
	Hello = "HELLO"
	// Ready answers Prepare (event=): everything is at rest.
	Ready = "READY"
	// Refuse answers Prepare (event=, reason=): not now.
	Refuse = "REFUSE"
	// Checkpoint asks for a checkpoint of the own container (exit=true ends it).
	Checkpoint = "CHECKPOINT"
	// Migrate asks for a move of the own container (host=).
	Migrate = "MIGRATE"
)

// Verbs of the shim.
const (
	// Welcome answers Hello without an event: version=, generation=.
	Welcome = "WELCOME"
	// Prepare asks the application to come to rest: event=, kind=, timeout_ms=.
	// When all have answered, the shim closes the connections.
	Prepare = "PREPARE"
	// Resumed says what came of an event: event=, outcome=, generation=, and
	// reason= of an event that failed.
	Resumed = "RESUMED"
	// Accepted answers Checkpoint and Migrate: it begins.
	Accepted = "ACCEPTED"
	// Denied answers them, too: reason=.
	Denied = "DENIED"
)

// Outcomes of an event.
const (
	// Restored: this is the copy, made from an image or come from another host.
	Restored = "restored"
	// Continued: this is the container that was there before.
	Continued = "continued"
)

// Kinds of events.
const (
	KindCheckpoint = "checkpoint"
	KindMove       = "move"
)

// Line is one line.
type Line struct {
	Verb   string
	Fields map[string]string
}

// New makes a line of a verb and of keys and values in turn.
func New(verb string, pairs ...string) Line {
	l := Line{Verb: verb, Fields: map[string]string{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		l.Fields[pairs[i]] = pairs[i+1]
	}
	return l
}

// Get is a field's value, empty if there is none.
func (l Line) Get(key string) string { return l.Fields[key] }

// String is the line as it is sent, without its line feed. Fields with an empty
// value are left out.
func (l Line) String() string {
	keys := make([]string, 0, len(l.Fields))
	for k, v := range l.Fields {
		if v != "" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var b strings.Builder
	b.WriteString(l.Verb)
	for _, k := range keys {
		b.WriteString(" " + k + "=" + url.QueryEscape(l.Fields[k]))
	}
	return b.String()
}

// Parse reads a line without its line feed.
func Parse(s string) (Line, error) {
	if len(s) >= MaxLine {
		return Line{}, fmt.Errorf("a line of %d bytes, at most %d are allowed", len(s), MaxLine)
	}
	verb, rest, more := strings.Cut(s, " ")
	if !word(verb) {
		return Line{}, fmt.Errorf("%.40q is no verb", verb)
	}
	l := Line{Verb: verb, Fields: map[string]string{}}
	if !more {
		return l, nil
	}
	for f := range strings.SplitSeq(rest, " ") {
		k, v, ok := strings.Cut(f, "=")
		value, err := url.QueryUnescape(v)
		if _, twice := l.Fields[k]; !ok || k == "" || err != nil || twice {
			return Line{}, fmt.Errorf("%s: %.80q is no field", verb, f)
		}
		l.Fields[k] = value
	}
	return l, nil
}

func word(s string) bool {
	for _, c := range s {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return s != ""
}
