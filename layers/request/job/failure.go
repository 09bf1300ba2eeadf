// SPDX-License-Identifier: Apache-2.0

package job

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/io-mig/mig/layers/control"
	"github.com/io-mig/mig/spec/record"
)

// FailureKind is what an error is about, for those who act on it.
type FailureKind string

// The kinds of failures, the first that fits.
const (
	// Refused: the pre-flight named state that cannot be carried.
	Refused FailureKind = "refused"
	// Canceled by the caller.
	Canceled FailureKind = "canceled"
	// Stalled: the watchdog ended it.
	Stalled FailureKind = "stalled"
	// Damaged: a record's checksum did not match.
	Damaged FailureKind = "damaged"
	// Unsupported: something this host or version cannot do.
	Unsupported FailureKind = "unsupported"
	// Panicked: a defect of mig.
	Panicked FailureKind = "panic"
	// Died: the engine process ended without a word.
	Died FailureKind = "engine died"
	// Other errors.
	Other FailureKind = "error"
)

// Limits of what crosses, in bytes of text, so that the whole stays far below a
// message's and a status file's limit even where JSON escapes every byte.
const (
	maxText     = 64 << 10
	maxChain    = 64 << 10
	maxFindings = 256 << 10
	maxWarnings = 64 << 10
	// maxLinks bounds the walk along a chain.
	maxLinks = 32
)

// Failure is an error that has crossed a process or a host whole: what kind it
// is, its text, the chain of its causes, and what a pre-flight found.
type Failure struct {
	Kind FailureKind `json:"kind"`
	Text string      `json:"text"`
	// Chain are the texts of the causes, the outermost first, without Text.
	Chain    []string         `json:"chain,omitempty"`
	Findings []record.Finding `json:"findings,omitempty"`
	// At and End are the event's states when it failed and when it had ended:
	// End tells whether the container runs on ("rolled back"), is gone
	// ("cleaned") or must not be let go ("held").
	At  string `json:"at,omitempty"`
	End string `json:"end,omitempty"`
	// Ran: a task of a restored copy may have run.
	Ran bool `json:"ran,omitempty"`
	// Stuck: a call never returned, the engine must be ended by force.
	Stuck bool `json:"stuck,omitempty"`
}

// WantOfMemory is part of the error of a restore whose processes the kernel has
// killed. The shim finds out, and its error comes to others as a text.
const WantOfMemory = "the kernel has killed it for want of memory (raise the limit of its cgroup, or of the one that it is in)"

// FailureOf packs an error. nil stays nil.
func FailureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	var crossed *Failure
	if errors.As(err, &crossed) && err.Error() == crossed.Text {
		return crossed
	}
	f := &Failure{Kind: kindOf(err), Text: clip(err.Error(), maxText), Chain: chain(err)}
	var refused *control.PreflightError
	if errors.As(err, &refused) {
		f.Findings = clipFindings(refused.Findings)
	}
	var e *control.Error
	if errors.As(err, &e) {
		f.At, f.End, f.Ran, f.Stuck = e.At.String(), e.End.String(), e.Ran, len(e.Stuck) > 0
	}
	return f
}

func kindOf(err error) FailureKind {
	var (
		crossed *Failure
		refused *control.PreflightError
		stalled *control.StallError
		damaged *record.ChecksumError
		paniced *control.PanicError
	)
	switch {
	case errors.As(err, &crossed):
		return crossed.Kind
	case errors.As(err, &refused):
		return Refused
	case errors.As(err, &stalled):
		return Stalled
	case errors.As(err, &damaged):
		return Damaged
	case errors.As(err, &paniced):
		return Panicked
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, errors.ErrUnsupported):
		return Unsupported
	}
	return Other
}

// chain lists the texts of the causes, the first of joined ones before the
// others.
func chain(err error) (texts []string) {
	left := maxChain
	var walk func(error)
	walk = func(err error) {
		if err == nil || len(texts) > maxLinks || left <= 0 {
			return
		}
		text := clip(err.Error(), min(left, maxChain/8))
		if len(texts) > 0 { // the first is the error itself
			left -= len(text)
		}
		texts = append(texts, text)
		switch u := err.(type) { //nolint:errorlint // this is the walk along the chain itself
		case interface{ Unwrap() error }:
			walk(u.Unwrap())
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return texts[1:]
}

// clip shortens a text to about limit bytes, and says so.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + fmt.Sprintf(" ... (%d bytes more)", len(s)-limit)
}

// clipFindings keeps the first that fit, and says how many did not.
func clipFindings(fs []record.Finding) []record.Finding {
	left := maxFindings
	for i, f := range fs {
		if left -= len(f.Subsystem) + len(f.What) + len(f.Why) + len(f.Remedy) + 64; left < 0 {
			more := record.Finding{FD: -1, Subsystem: f.Subsystem, What: fmt.Sprintf("%d more findings", len(fs)-i)}
			return append(fs[:i:i], more)
		}
	}
	return fs
}

func (f *Failure) Error() string { return f.Text }

// Unwrap gives back what callers compare with.
func (f *Failure) Unwrap() error {
	switch f.Kind {
	case Refused:
		return &control.PreflightError{Findings: f.Findings}
	case Canceled:
		return context.Canceled
	case Unsupported:
		return errors.ErrUnsupported
	}
	return nil
}
